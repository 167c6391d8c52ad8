"""RTMPose's Table 1: each rung of the paper's ablation as training runs of its own."""
