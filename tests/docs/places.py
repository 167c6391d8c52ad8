"""Which test runs each command that stands in a block of the documentation."""

from __future__ import annotations

# By the command's beginning; of several that fit, the longest counts. `GUIDES` is test_guides.py, `TUTORIAL`
# test_tutorial.py; any other place is a test, or a program that is started by hand since it takes minutes.
GUIDES, TUTORIAL = "guides", "tutorial"
STEPS = "tests/workflows/test_steps.py"
PLACES = {
    "make repro": "tests/test_real_coco.py::test_two_epochs_on_photographs",
    "make test": ".ci/run",
    "python -m pipelines.evaluate --raw": GUIDES,
    "rtmpose weights": GUIDES,
    "rtmpose weights pull rtmpose-t-body17-coco.pth": TUTORIAL,
    "rtmpose convert": GUIDES,
    "rtmpose convert-runtime": "tests/deploy/test_runtimes_converted.py::test_the_command_converts",
    "rtmpose setup-runtime": (
        "tests/deploy/test_runtimes_converted.py::test_a_set_up_cut_short_or_of_other_versions_is_begun_again"
    ),
    "rtmpose export": GUIDES,
    "rtmpose export animal.pt": "tests/cli/test_models.py",
    "rtmpose predict": GUIDES,
    "rtmpose predict photo.jpg --model models:": TUTORIAL,
    "rtmpose track": GUIDES,
    "rtmpose track rtsp:": "tests/inference/outside/test_live.py::test_a_stream_over_tcp_is_live",
    "rtmpose serve": "tests/page/test_serve.py::test_the_end_leaves_no_temporary_files",
    "rtmpose dataset": GUIDES,
    "rtmpose dataset check own": TUTORIAL,
    "rtmpose dataset check birds.yaml": "tests/data/raw/test_check.py",
    "rtmpose doctor": "tests/doctor/test_run.py",
    "rtmpose detector": (
        "tests/detection/test_train.py::test_the_commands_train_export_and_judge_on_photographs"
    ),
    "rtmpose quantize": "tests/deploy/quantize/test_commands.py",
    "rtmpose film": GUIDES,
    "rtmpose evaluate-pipeline": GUIDES,
    "rtmpose report": "tests/report/test_baseline.py::test_the_command_makes_it",
    "rtmpose models": "tests/cli/test_registry.py",
    "rtmpose promote": "tests/cli/test_registry.py",
    "rtmpose rollback": "tests/cli/test_registry.py",
    "mlflow models serve": "tests/inference/test_served.py",
    "mlflow server": "tests/tracking/test_team.py::test_a_version_is_registered_and_no_secret_is_anywhere",
    # Every composition: tests/test_workflow.py; the training of every recipe: tests/recipes.
    "dvc exp run": "tests/docs/test_exp_run.py::test_a_recipe_is_composed_and_run",
    "dvc repro": "tests/test_faults.py",
    "dvc metrics show": "tests/test_real_coco.py::test_two_epochs_on_photographs",
    "dvc plots show": "tests/test_real_coco.py::test_two_epochs_on_photographs",
    "ray": "tests/faults/two_nodes.py",
    "python -m tests.workflows.steps": "tests/workflows/steps.py",
    "python -m ci.targets": f"{STEPS}::test_the_matrix_is_what_the_targets_say",
    "python -m ci.fetch": f"{STEPS}::test_the_candidate_is_fetched_to_be_measured",
    "python -m ci.decide": "tests/workflows/test_decide.py::test_the_step_fails_with_a_table",
    "python -m ci.history": f"{STEPS}::test_the_history_grows_by_a_line_and_a_point",
    "python -m tests.faults.promotion": "tests/promotion/test_faults.py",
    "pip install": "tests/test_package.py",
    "pip install $(grep": f"{STEPS}::test_a_gpu_gets_onnx_runtime_s_build_for_it",
    "pip uninstall": f"{STEPS}::test_a_gpu_gets_onnx_runtime_s_build_for_it",
}
# What no machine of a test has.
NOWHERE = {"rtmpose track 0": "a camera"}
