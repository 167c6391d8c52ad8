"""What a recipe says, and what a reference configuration says, as one flat table of facts each.

Keys are the same in both, so that they can be compared fact by fact.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from rtmpose.config import AugmentConfig, Params, TrainParams
from rtmpose.descriptors import load_dataset, load_skeleton
from rtmpose.models.cspnext import SIZES
from rtmpose.targets import SimCC

Facts = dict[str, Any]
GPUS = 8  # of every reference configuration
HALF_BODY, SHIFT, SHIFT_PROB, ROTATE_PROB = 0.3, 0.16, 0.3, 0.6  # defaults of the reference's transforms
HSV = (5, 30, 30)
# The reference's class of a data set -> our descriptor.
SETS = {
    "CocoDataset": "coco17", "AicDataset": "aic", "CrowdPoseDataset": "crowdpose", "MpiiDataset": "mpii",
    "JhmdbDataset": "jhmdb", "HalpeDataset": "halpe26", "PoseTrack18Dataset": "posetrack18",
    "CocoWholeBodyDataset": "coco_wholebody", "CocoWholeBodyHandDataset": "coco_wholebody_hand",
    "OneHand10KDataset": "onehand10k", "FreiHandDataset": "freihand", "Rhd2DDataset": "rhd",
    "HalpeHandDataset": "halpe_hand", "LapaDataset": "lapa106", "WFLWDataset": "wflw",
    "CocoWholeBodyFaceDataset": "coco_wholebody_face", "Face300WDataset": "face300w", "COFWDataset": "cofw",
    "OCHumanDataset": "ochuman",
}  # fmt: skip
# The reference's class of a metric -> ours; the others are AP, and PCK with its threshold.
METRICS = {
    "AUC": "auc", "EPE": "epe", "NME": "nme", "MpiiPCKAccuracy": "pckh", "CocoWholeBodyMetric": "parts",
}  # fmt: skip
# The reference's file of a backbone -> what it was trained on.
BACKBONES = {
    r"cspnext-\w+_udp-aic-coco_": "udp-aic-coco",
    r"cspnext-\w+_udp-body7_210e-256x192": "udp-body8",
    r"cspnext-\w+_udp-body7_210e-384x288": "udp-body8-384",
    r"rtmpose-\w+_simcc-body7_pt-body7_420e-256x192": "body8",
    r"cspnext-\w+_8xb256-rsb-a1-600e_in1k|cspnext-\w+_imagenet_": "imagenet",
}
LAPA = 106  # points, to which faces are mapped
PHOTOMETRIC: tuple[
    tuple[str, float, dict[str, float]], ...
] = (  # the reference's PhotometricDistortion by its defaults, as our recipes write it
    ("RandomBrightnessContrast", 0.5, {"brightness_limit": round(32 / 255, 5), "contrast_limit": 0.0}),
    ("RandomBrightnessContrast", 0.5, {"brightness_limit": 0.0, "contrast_limit": 0.5}),
    ("ColorJitter", 0.5, {"brightness": 0.0, "contrast": 0.0, "saturation": 0.5, "hue": 0.0}),
    ("ColorJitter", 0.5, {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "hue": 18 / 180}),
    ("ChannelShuffle", 0.5, {}),
)


def facts_of(params: Params, stage: str = "finetune") -> Facts:
    """The facts of one stage of a composed recipe."""
    train: TrainParams = params.finetune if stage == "finetune" else params.pretrain
    optim, depth_width = train.optim, SIZES[params.model.size]
    facts = {
        "input": params.input_size,
        "points": load_skeleton(train.skeleton).num_keypoints,
        "sets": {data.descriptor: data.repeat for data in params.datasets.values() if data.train},
        "epochs": train.epochs,
        "weak_epochs": train.weak_epochs,
        "evaluate_every": train.evaluate_every,
        "batch": train.batch_size,
        "lr": optim.lr,
        "final_lr": optim.final_lr,
        "flat": int(train.epochs * optim.flat),
        "schedule": optim.schedule,
        "warmup": (optim.warmup_steps, optim.warmup_start),
        "clip": optim.clip_grad,
        "weight_decay": params.model.weight_decay,
        "decay_norms": optim.decay_norms,
        "ema": (params.model.ema_momentum, optim.ema_gamma),
        "seed": params.seed,
        "size": (depth_width[0], depth_width[1]),
        **_jitter("strong", train.strong),
        **_jitter("weak", train.weak),
    }
    if stage == "pretrain":
        return facts | {"backbone": params.pretrain.init or "imagenet", "sigma": params.pretrain.sigma}
    sigma = SimCC(params.input_size, params.finetune.sigma).sigma
    return facts | {
        "backbone": _start(params),
        "sigma": tuple(round(side, 2) for side in sigma),
        "tau": params.finetune.tau,
        "head": (params.model.head, params.model.kernel, params.model.hidden, params.model.gau),
        "flip_test": params.evaluate.flip_test,
        **_judged(params),
    }


def _judged(params: Params) -> Facts:
    """What all sets are judged by together and which these are, or what the first one is judged by besides
    AP.
    """
    pooled, sets = params.evaluate.pooled, [data for data in params.datasets.values() if data.evaluate]
    first = load_dataset(sets[0].descriptor)
    told = first if pooled is None else pooled
    names = {
        name: [f"pck@{threshold:g}" for threshold in told.metric_options.pck.at] if name == "pck" else [name]
        for name in told.metrics
        if name != "ap"
    }
    return {
        "judged": {each for found in names.values() for each in found},
        "pooled": set() if pooled is None else {data.descriptor for data in sets},
    }


def _start(params: Params) -> str:
    """What finetuning's backbone was trained on: by the recipe itself, or by the name of the file."""
    if not params.pretrain.enabled:
        return re.sub(rf"^weights/(.*)-{params.model.size}\.pt$", r"\1", str(params.pretrain.init))
    names = {data.descriptor for data in params.datasets.values() if data.train}
    larger = "" if params.input_size[0] == 192 else "-384"
    return {2: "udp-aic-coco", 7: f"udp-body8{larger}", 1: f"udp-{min(names)}"}[len(names)]


def _jitter(part: str, augment: AugmentConfig) -> Facts:
    pixels = [(entry.name, entry.p, entry.model_extra) for entry in augment.pixels]
    distorted = pixels[: len(PHOTOMETRIC)] == list(PHOTOMETRIC)
    blurs = {name: (p, more) for name, p, more in (pixels[len(PHOTOMETRIC) :] if distorted else pixels)}
    found: Facts = {
        "flip": augment.flip,
        "half_body": augment.half_body,
        "shift": augment.shift,
        "shift_prob": augment.shift_prob,
        "scale": augment.scale,
        "rotate": augment.rotate,
        "rotate_prob": augment.rotate_prob,
        "hsv": (augment.hue, augment.saturation, augment.value),
        "photometric": distorted,
        "blurs": blurs,
        "hole": augment.hole,
    }
    return {f"{part}.{name}": value for name, value in found.items()}


def facts_of_reference(config: Mapping[str, Any]) -> Facts:
    """The facts of a configuration of golden/models.json."""
    wrapper, (warmup, cosine) = config["optim_wrapper"], config["param_scheduler"]
    head, backbone = config["model"]["head"], config["model"]["backbone"]
    optimizer, epochs, per_gpu = wrapper["optimizer"], config["max_epochs"], config["train_batch_size"]
    clip, (ema,) = wrapper.get("clip_grad"), config["ema"] or ({"momentum": 0.0},)
    paramwise = wrapper["paramwise_cfg"]
    facts = {
        "input": tuple(config["input_size_wh"]),
        "points": head["out_channels"],
        "sets": _sets(config["train_dataset"]),
        "epochs": epochs,
        "weak_epochs": config["stage2_num_epochs"],
        "evaluate_every": config["train_cfg"]["val_interval"],
        "batch": GPUS * per_gpu,
        "lr": optimizer["lr"],
        "final_lr": cosine["eta_min"] / optimizer["lr"],
        "flat": cosine["begin"],
        "schedule": {"CosineAnnealingLR": "flat_cosine"}[cosine["type"]],
        "warmup": (warmup["end"], warmup["start_factor"]),
        "clip": clip["max_norm"] / per_gpu if clip else None,  # per sample here, per device there
        "weight_decay": optimizer["weight_decay"],
        "decay_norms": bool(paramwise["norm_decay_mult"] or paramwise["bias_decay_mult"]),
        "ema": (ema["momentum"], 2000.0),
        "seed": (config["randomness"] or {}).get("seed"),
        "size": (backbone["deepen_factor"], backbone["widen_factor"]),
        "backbone": _started(backbone["init_cfg"]["checkpoint"]),
        **_transforms("strong", config["train_pipeline"]),
        **_transforms("weak", config["train_pipeline_stage2"]),
    }
    if "gau_cfg" not in head:
        return facts | {"sigma": float(config["codec"]["sigma"])}
    gau = head["gau_cfg"]
    plain = {"s": 128, "expansion_factor": 2, "dropout_rate": 0.0, "drop_path": 0.0, "act_fn": "SiLU"}
    assert {name: gau[name] for name in plain} == plain and not gau["use_rel_bias"] and not gau["pos_enc"]
    return facts | {
        "sigma": tuple(config["codec"]["sigma"]),
        "tau": 1 / head["loss"]["beta"],
        "head": ("simcc", head["final_layer_kernel_size"], gau["hidden_dims"], True),
        "flip_test": config["model"]["test_cfg"]["flip_test"],
        "judged": _metrics(config["test_evaluator"]),
        "pooled": set(_sets(config["test_dataset"])) if "datasets" in config["test_dataset"] else set(),
    }


def _metrics(evaluator: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> set[str]:
    """What a configuration is judged by besides AP."""
    found = set()
    for one in [evaluator] if isinstance(evaluator, Mapping) else evaluator:
        kind = one["type"]
        if kind == "PCKAccuracy":
            found.add(f"pck@{one['thr']:g}")
        elif kind != "CocoMetric":
            found.add(METRICS[kind])
        elif one.get("iou_type") == "keypoints_crowd":
            found.add("crowd")
    return found


def _sets(dataset: Mapping[str, Any]) -> dict[str, int]:
    found = {}
    for part in dataset.get("datasets", [dataset]):
        inner, times = part.get("dataset", part), part.get("times", 1)
        name = SETS[inner["type"]]
        to = {step.get("num_keypoints") for step in inner.get("pipeline", ())}
        if name == "halpe26" and ("133kpt" in inner["ann_file"] or LAPA in to):
            name = "halpe_face"
        if inner["ann_file"].endswith("lapa_train.json"):
            name = "lapa106_train"
        found[name] = times
    return found


def _started(checkpoint: str) -> str:
    (name,) = {label for pattern, label in BACKBONES.items() if re.search(pattern, checkpoint)}
    return name


def _transforms(part: str, pipeline: Sequence[Mapping[str, Any]]) -> Facts:
    by_type = {step["type"]: step for step in pipeline}
    box, pixels = by_type["RandomBBoxTransform"], {}
    for entry in by_type["Albumentation"]["transforms"]:
        pixels[entry["type"]] = entry
    hole = pixels.pop("CoarseDropout")
    sides = [hole[f"{end}_{side}"] for end in ("min", "max") for side in ("height", "width")]
    assert (sides, hole["min_holes"], hole["max_holes"]) == ([0.2, 0.2, 0.4, 0.4], 1, 1)
    low, high = box["scale_factor"]
    found: Facts = {
        "flip": 0.5 if "RandomFlip" in by_type else 0.0,
        "half_body": HALF_BODY if "RandomHalfBody" in by_type else 0.0,
        "shift": box.get("shift_factor", SHIFT),
        "shift_prob": SHIFT_PROB,
        "scale": (high - low) / 2,
        "rotate": box["rotate_factor"],
        "rotate_prob": ROTATE_PROB,
        "hsv": HSV if "mmdet.YOLOXHSVRandomAug" in by_type else (0, 0, 0),
        "photometric": "PhotometricDistortion" in by_type,
        "blurs": {name: (entry["p"], {"blur_limit": [3, 7]}) for name, entry in pixels.items()},
        "hole": hole["p"],
    }
    return {f"{part}.{name}": value for name, value in found.items()}
