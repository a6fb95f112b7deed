"""Methods of distillation, one module each; a subclass of `Method` with a `name` is known by it."""

from kdam_hf.distillation.methods.base import METHODS, Batch, LogitMethod, Method, make_method
from kdam_hf.distillation.methods.cs import CauchySchwarz
from kdam_hf.distillation.methods.cwd import ChannelWise
from kdam_hf.distillation.methods.dist import Dist
from kdam_hf.distillation.methods.features import Features
from kdam_hf.distillation.methods.kl import KullbackLeibler

__all__ = [
    "METHODS",
    "Batch",
    "CauchySchwarz",
    "ChannelWise",
    "Dist",
    "Features",
    "KullbackLeibler",
    "LogitMethod",
    "Method",
    "make_method",
]
