"""An OpenAI-compatible server with pictures, videos and live streams, safe enough to put a port on: `pvc serve`.

`create_app(engine, settings)` makes the application; nothing here is global.
"""
