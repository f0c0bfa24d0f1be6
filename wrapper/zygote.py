"""The pre-loaded process: forks one wrapper an attempt, in milliseconds, and knows nothing else.

A node starts it once (`igor_node/agent/launch.py`) with one end of a socket pair (SOCK_SEQPACKET) as a descriptor and ROOT as its working
directory. Each packet is the name of an attempt whose folder is ready. It answers only with what went wrong: `ATTEMPT fork ERROR` or
`ATTEMPT exit STATUS`. When the node is gone (end of file) it ends, without touching the wrappers: they belong to nobody. When it is killed the
node starts another one.

A wrapper that is killed loses its command (PDEATHSIG), but what the command had started would stay. This process is the next subreaper above, so such
orphans come here, and are ended.
"""

from __future__ import annotations

import gc
import os
import select
import signal
import sys
import traceback

from wrapper import linux, protocol, run

REQUEST_BYTES = 512  # a name has at most 255
LISTEN = "igor-zygote"


class Zygote:
    def __init__(self, control: int) -> None:
        self.control = control
        self.boot_id = protocol.read_boot_id()
        self.wrappers: dict[int, str] = {}
        self.signals, write_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)

    def serve(self) -> None:
        linux.become_subreaper()
        linux.name_process(LISTEN)
        gc.collect()
        gc.freeze()  # a collection in a wrapper would touch, and so copy, every page
        gc.disable()
        poll = select.poll()
        poll.register(self.control, select.POLLIN)
        poll.register(self.signals, select.POLLIN)
        while True:
            for fd, _ in poll.poll():
                if fd == self.signals:
                    os.read(self.signals, 4096)
                    self._reap()
                elif not self._request():
                    return

    def _request(self) -> bool:
        try:
            name = os.read(self.control, REQUEST_BYTES).decode()
        except BlockingIOError:
            return True
        except ConnectionResetError:
            return False
        if not name:
            return False
        try:
            pid = os.fork()
        except OSError as problem:
            self._answer(f"{name} fork {problem.strerror}")
            return True
        if pid == 0:
            self._child(name)
        self.wrappers[pid] = name
        return True

    def _child(self, name: str) -> None:
        """Never returns."""
        status = 1
        try:
            os.close(self.control)
            os.close(self.signals)
            run.main(name, self.boot_id)
            status = 0
        except BaseException:
            sys.stderr.write(f"wrapper of {name}:\n{traceback.format_exc()}")
            sys.stderr.flush()
        finally:
            os._exit(status)

    def _reap(self) -> None:
        orphans = False
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                break
            name = self.wrappers.pop(pid, None)
            if name is None:
                orphans = True  # one of them has ended, and may have handed over its own
            elif status != 0:
                orphans = True
                self._answer(f"{name} exit {os.waitstatus_to_exitcode(status)}")
        if orphans:
            self._end_orphans()

    def _end_orphans(self) -> None:
        """A dead wrapper's processes became children of this one; each that is ended hands over its own. SIGCHLD brings us back for the rest."""
        mine = set(self.wrappers)
        for pid in linux.children(os.getpid()):
            if pid not in mine:
                for below in [pid, *linux.descendants(pid)]:
                    try:
                        os.kill(below, signal.SIGKILL)
                    except (ProcessLookupError, PermissionError):
                        pass  # ended meanwhile

    def _answer(self, text: str) -> None:
        try:
            os.write(self.control, text.encode()[:REQUEST_BYTES])
        except OSError:
            pass  # the node is gone or does not read: it looks at the folders anyway


def main() -> None:
    """`python -I -S -c … DESCRIPTOR`; the working directory is ROOT."""
    Zygote(int(sys.argv[1])).serve()
