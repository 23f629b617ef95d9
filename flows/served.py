"""The code that a saved model carries (flows/serving.py): all it knows is where the rest stands."""

from mlflow.models import set_model

from flows.serving import Talker

set_model(Talker())
