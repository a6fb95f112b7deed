import onnxruntime
from transformers import AutoImageProcessor, pipeline

import kdam_hf  # noqa: F401  makes the models known to transformers

metres = pipeline("multi-task-dense-prediction", model="student")("photos/3.jpg")["depth"]["values"]
tensor = pipeline("depth-estimation", model="student")("photos/3.jpg")["predicted_depth"]
photo = AutoImageProcessor.from_pretrained("exported")("photos/3.jpg", return_tensors="np")["pixel_values"]
(depth,) = onnxruntime.InferenceSession("exported/onnx/model.onnx").run(["depth"], {"pixel_values": photo})
