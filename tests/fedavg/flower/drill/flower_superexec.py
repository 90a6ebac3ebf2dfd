"""`flower-superexec` with a warm start: it forks itself for each message where Flower starts a new interpreter.

For drills on small machines: importing Flower takes 1.5 CPU-seconds, and a round of 12 nodes has 60 messages. Every
ClientApp is still a process of its own, in the SuperNode's process group.
"""

import os
import signal
import subprocess
import sys


def main():
    import numpy  # noqa: F401
    from flwr.supercore.cli import flower_superexec
    from flwr.superlink.cli import flwr_serverapp
    from flwr.supernode.cli import flwr_clientapp

    import fedavg.flower  # noqa: F401

    commands = {"flwr-clientapp": flwr_clientapp, "flwr-serverapp": flwr_serverapp}

    class Forked:
        def __init__(self, arguments, **_):
            self.pid = os.fork()
            if self.pid == 0:
                for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
                    signal.signal(number, signal.SIG_DFL)
                sys.argv = list(arguments)
                commands[arguments[0]]()
                os._exit(0)

    subprocess.Popen = Forked
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    flower_superexec()


if __name__ == "__main__":
    main()
