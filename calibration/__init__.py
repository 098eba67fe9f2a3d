"""INT8 calibration and quantization of an exported graph."""
