"""Writes the ONNX graphs of a bundle, node by node, from (ModelConfig, weights).

Entry points: ``edge.export.encoder.encoder_graph``, ``edge.export.decoder.decoder_graph`` and
``edge.export.save.save_graph``. Nothing here imports torch, and this file imports nothing at all.
"""
