"""What a registered version carries as its code: MLflow runs this file where the version is loaded."""

from mlflow.models import set_model

from rtmpose.inference.served import ServedPose

set_model(ServedPose())
