"""Boxes of people in a picture: RTMDet, and any ONNX detector of RTMDet's or YOLOX's output form."""
