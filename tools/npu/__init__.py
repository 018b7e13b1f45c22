"""Making and trying the files that NPUs run; docs/npu.md. Nothing of it is needed on the box."""
