"""`talkingface schedule`: what the Prefect server has to know beside the deployments of prefect.yaml."""

from datetime import timedelta

from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.events.schemas.events import ResourceSpecification
from prefect.exceptions import ObjectAlreadyExists
from prefect.workers.process import ProcessWorker

POOLS = ("cpu", "gpu")  # of prefect.yaml: for looking and for training
DEAD_RUNS = "a run without heartbeat has crashed"
DEAD_AFTER = timedelta(minutes=10)  # three heartbeats of Prefect's 180 s, and some


def prepare() -> None:
    """Has the server of PREFECT_API_URL know the pools of prefect.yaml, and call a run crashed whose process is gone.

    Such a run, as of a worker whose machine lost power, would stay "running" for ever.
    """
    template = ProcessWorker.get_default_base_job_template()
    with get_client(sync_client=True) as client:
        for pool in POOLS:
            try:
                client.create_work_pool(WorkPoolCreate(name=pool, type=ProcessWorker.type, base_job_template=template))
            except ObjectAlreadyExists:
                continue
        if not client.read_automations_by_name(DEAD_RUNS):
            client.create_automation(_dead_runs())


def _dead_runs() -> AutomationCore:
    alive = "prefect.flow-run.heartbeat"
    ends = {f"prefect.flow-run.{state}" for state in ("Completed", "Failed", "Cancelled", "Crashed")}
    trigger = EventTrigger(
        after={alive},
        expect={alive, *ends},
        match=ResourceSpecification({"prefect.resource.id": ["prefect.flow-run.*"]}),
        for_each={"prefect.resource.id"},
        posture=Posture.Proactive,
        threshold=1,
        within=DEAD_AFTER,
    )
    why = f"no heartbeat for {DEAD_AFTER}: its process is gone"
    crashed = ChangeFlowRunState(name=None, state=StateType.CRASHED, force=False, message=why)
    return AutomationCore(name=DEAD_RUNS, trigger=trigger, actions=[crashed])
