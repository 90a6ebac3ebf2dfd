"""Ray, where it is installed, on the loopback interface only, and telling nobody that it runs."""

import importlib.util
import os

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"
os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # off: everything listens on 127.0.0.1

collect_ignore = [] if importlib.util.find_spec("ray") else ["test_ray.py"]
