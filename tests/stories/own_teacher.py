import torch

from kdam_hf import distill
from kdam_hf.tasks import Depth


class Mine(torch.nn.Module):
    tasks = (Depth(),)

    def forward(self, pixel_values):  # RGB in [0, 1]
        return {"depth": 1 + 9 * pixel_values.mean(1, keepdim=True)}  # metres


if __name__ == "__main__":
    sizes = {"crop_height": 64, "crop_width": 96, "max_steps": 3, "total_train_batch_size": 4}
    distill(images="photos", teacher="own_teacher.py:Mine", output_dir="student", backbone_weights="none", **sizes)
