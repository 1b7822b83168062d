"""The model as one file: ONNX or torch.export."""
