from onnxruntime import InferenceSession
from transformers import AutoImageProcessor, pipeline

maps = pipeline("multi-task-dense-prediction", model="student")("photos/3.jpg")
metres = pipeline("depth-estimation", model="student")("photos/3.jpg")["predicted_depth"]
raw = InferenceSession("exported/onnx/model.onnx").run(
    None, dict(AutoImageProcessor.from_pretrained("student")("photos/3.jpg", return_tensors="np"))
)
