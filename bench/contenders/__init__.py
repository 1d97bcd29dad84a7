"""Those who are compared, a module for each kind; `base.py` says what they do."""

from .base import begun, missing, present
from .chains import Runit, S6, S6Log, Svlogd
from .daemon import Daemon, Declared, Json, Supervisor, Times
from .floor import Bare, Cat, Floor
from .node import NodeCluster
from .pm2 import Pm2Cluster, Pm2Dates, Pm2Fork
from .python import Circus, Gunicorn, Supervisord

# Those who run workers that do nothing.
PEERS = (Runit, S6, Supervisord, Circus, Gunicorn, NodeCluster, Pm2Fork, Pm2Cluster)
# Those who write what workers say into a file.
LOGGERS = (Cat, Supervisor, Times, Json, S6Log, Svlogd, Supervisord, Circus, Pm2Fork, Pm2Dates)
# Those who serve, and can reload what serves.
SERVERS = (Supervisor, NodeCluster, Pm2Cluster, Gunicorn)
