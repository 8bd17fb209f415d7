"""A process with an agent: ``python agentscope_child.py PATH SAVE WHAT [durable]``.

``reply`` and ``park`` print, as JSON, the messages of the agent and what it asks the user for. ``model`` and ``tool``
say that they wait, for ever, in the second call of the model or in the second call of a tool; ``first`` does in the
first call of the model.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from agentscope.message import UserMsg

from runtimes.agentscope.support import Part, Speaker, Step, call, for_ever, park, text, thought
from session_history import SqliteSessionHistoryService

ROME: list[Part] = [
    thought("I should look.", "signed"),
    text("Let me see."),
    call("weather", id="c1", city="Rome"),
]

SCRIPTS: dict[str, list[Step]] = {
    "reply": [ROME, text("It is sunny.")],
    "park": [ROME, call("book", id="c2", city="Rome")],
    "first": [for_ever()],
    "model": [ROME, for_ever()],
    "tool": [ROME, call("endless_alone", id="c2")],
}


async def main(path: str, save: str, what: str, durable: str = "") -> None:
    async with SqliteSessionHistoryService(path) as service:
        speaker = Speaker(service, *SCRIPTS[what], save=save, durable=bool(durable))
        asked = UserMsg("user", "How is Rome?")
        if what == "reply":
            await speaker.agent.reply(asked)
            print(json.dumps(speaker.context))
        elif what == "park":
            parked = await park(speaker, asked)
            print(json.dumps({"context": speaker.context, "parked": parked.model_dump(mode="json")}))
        else:
            reply = asyncio.create_task(speaker.agent.reply(asked))
            await (speaker.tools if what == "tool" else speaker.model).waiting.wait()
            print("waits", flush=True)
            await reply


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
