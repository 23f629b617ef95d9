"""The top floor: Prefect runs what DVC finds stale, MLflow remembers it. Nothing below imports either.

Both keep their state in this folder and talk to nobody: settings of the environment win over these defaults.
"""

import os
from pathlib import Path

_DEFAULTS = {
    "PREFECT_HOME": str(Path(".prefect").resolve()),
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_LOGGING_SERVER_LEVEL": "CRITICAL",
    "DO_NOT_TRACK": "1",
    "ORT_DISABLE_TELEMETRY": "1",  # ONNX Runtime, which diffusers imports too, tells its maker of every process
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # nine processes that nothing here has a use for
    "MLFLOW_TRACKING_URI": f"sqlite:///{Path('mlflow.db').resolve()}",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",  # each step of each becomes a line where nobody is at a terminal
    "GIT_PYTHON_REFRESH": "quiet",
    # Torch's threads that turn round while they wait take three to six times as long where anything else is at work (measured).
    "OMP_WAIT_POLICY": "PASSIVE",
}
for _name, _value in _DEFAULTS.items():
    os.environ.setdefault(_name, _value)  # read when prefect, mlflow and torch are imported, so before that
