"""Pictures and clips as users make them: any aspect ratio, many fonts, signs, screens, charts, conversations.

A task here returns canvases in pixels instead of scenes in units; the older tasks train and measure single skills.
Called by `pvc.lab.synthetic.tasks`.
"""
