"""Which sample goes to which rank at which step: pure functions of whole numbers."""

from hpc_train.data.plan.plan import TrainPlan, ValidationPlan

__all__ = ["TrainPlan", "ValidationPlan"]
