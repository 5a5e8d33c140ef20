"""What runs inside the private Lava environment, in a process of its own, and nowhere else.

A program is a module of this package, named in `main.PROGRAMS`, with one function:

    def run(request, arrays, alive) -> tuple[dict[str, Any], dict[str, NDArray]]

``request``: plain values from JSON, ``request["program"]`` is the module's name; ``arrays``: the
numpy arrays that came with it, by name. What it returns (plain values, arrays) is the answer; what
it raises is answered as an error. ``alive()`` starts the request's deadline anew, and tells the
parent which shared memory this session holds, so that it can be taken away when all else has died:
call it once Lava's own processes are up, and then whenever a part is done, seconds apart at most
often. A program imports Lava inside ``run`` (or below it), prints nothing, and stops what it
started in a ``finally``. At the deadline the parent kills the whole session.

The parent's side is `snnpipe.deploy.lava.process.Worker`:

    with Worker.start(python) as worker:
        result, arrays = worker.ask({"program": "models", ...}, arrays, deadline=60.0)

Modules here are loaded twice: by the parent as ``snnpipe.deploy.lava.worker.x`` (`frames` only),
by the worker as ``worker.x``. Hence they import only each other (relatively), numpy and Lava.
Lava executes every file beside one that defines a Process: such files live in a package of their
own below this one, which holds nothing else.
"""
