"""A procedural world with questions and answers, from which a tiny model learns: pictures, clips, text and shapes."""

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
