"""Teachers: models of the Hub by the class of their head, one file per family; KDAM models; and any module of the user."""

from kdam_hf.teachers import depth, normals, semantic, tipsv2  # noqa: F401  each makes its family known
from kdam_hf.teachers.base import FAMILIES, ForeignTeacher
from kdam_hf.teachers.class_map import ClassMap, read_class_map
from kdam_hf.teachers.find import TeacherSource, find_teacher

__all__ = ["FAMILIES", "ClassMap", "ForeignTeacher", "TeacherSource", "find_teacher", "read_class_map"]
