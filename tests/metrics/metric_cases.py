"""Random predictions and labels of six images of 9 x 11 pixels, some of them invalid, for every kind of metric."""

import torch


def class_ids(classes=6):
    label = torch.randint(0, classes + 1, (6, 9, 11))
    return torch.randint(0, classes, (6, 9, 11)), torch.where(label == classes, 255, label)


def depths():
    label = 10 * torch.rand(6, 1, 9, 11)
    return 10 * torch.rand(6, 1, 9, 11), torch.where(label < 2, 0, label)


def vectors():
    return torch.randn(6, 3, 9, 11), torch.where(torch.rand(6, 1, 9, 11) < 0.2, 0, torch.randn(6, 3, 9, 11))


def binary():
    label = torch.randint(0, 3, (6, 9, 11))
    return torch.rand(6, 9, 11), torch.where(label == 2, 255, label)
