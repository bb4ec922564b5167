"""A procedural world of pictures, clips, text and shapes with questions and exact answers.

Small models are trained and measured on it. Called by `pvc.lab`, the command line, tests and benchmarks.
"""

from pvc.lab.synthetic.conversation import messages_of
from pvc.lab.synthetic.dataset import write_dataset
from pvc.lab.synthetic.scene import Sample
from pvc.lab.synthetic.sheet import contact_sheet
from pvc.lab.synthetic.stream import SampleStream, stream
from pvc.lab.synthetic.tasks import TASKS, Task, make
from pvc.lab.synthetic.vocabulary import PATCH_CLASSES, character_class, class_name, shape_class

__all__ = [
    "PATCH_CLASSES",
    "TASKS",
    "Sample",
    "SampleStream",
    "Task",
    "character_class",
    "class_name",
    "contact_sheet",
    "make",
    "messages_of",
    "shape_class",
    "stream",
    "write_dataset",
]
