"""The tables, and the machines held against them: a hole raises, for every event in every phase."""

import pytest

from secagg import LocalProtocolError, UnexpectedMessage
from secagg.phases import ADVANCE, CLIENT, MASK, SERVER, STAGES, Kind, Phase, after
from tests.secagg.rounds import STAGE_NAMES, Round, choose

MODES = ["semi_honest", "malicious"]
FROM_SERVER = [Kind.OFFER, Kind.ROSTER, Kind.INBOX, Kind.SURVIVORS, Kind.TAGS]
FROM_CLIENTS = [Kind.ADVERTISE, Kind.SHARE, Kind.MASKED_INPUT, Kind.CONSISTENCY, Kind.UNMASK]


@pytest.mark.parametrize("table", [CLIENT[m] for m in MODES] + [SERVER[m] for m in MODES])
def test_every_phase_leads_to_done_and_nothing_leaves_the_end(table):
    assert Phase.DONE not in table
    assert Phase.FAILED not in table
    phase = next(iter(table))
    seen = [phase]
    while phase is not Phase.DONE:
        phase = next(p for p in table[phase].values() if p is not phase)
        seen.append(phase)
    assert set(seen) == {*table, Phase.DONE}


@pytest.mark.parametrize("mode", MODES)
def test_an_unknown_key_raises_by_whose_fault_it_is(mode):
    for table in (CLIENT[mode], SERVER[mode]):
        for phase in Phase:
            for event in [*Kind, MASK, ADVANCE]:
                if event in table.get(phase, {}):
                    assert after(table, phase, event) is table[phase][event]
                    continue
                error = UnexpectedMessage if isinstance(event, Kind) else LocalProtocolError
                with pytest.raises(error):
                    after(table, phase, event, sender=3)


def test_stages_are_those_that_scripts_name():
    assert [stage.value for stage in STAGES["malicious"]] == STAGE_NAMES
    assert [s.value for s in STAGES["semi_honest"]] == [s for s in STAGE_NAMES if s != "consistency"]


@pytest.mark.parametrize("mode", MODES)
def test_clients_refuse_every_message_their_phase_has_no_row_for(mode):
    """Every kind in every phase, with bytes that were good elsewhere in the same round."""
    full = Round(choose(adversary=mode))
    full.finish()
    by_kind = dict(
        zip(FROM_SERVER if mode == "malicious" else FROM_SERVER[:4], full.down.values(), strict=True)
    )
    sent = dict(zip([k for k in FROM_CLIENTS if mode == "malicious" or k is not Kind.CONSISTENCY],
                    full.up.values(), strict=True))  # fmt: skip
    for stage in [*full.down, "end"]:
        for kind, data in {**by_kind, **sent}.items():
            round_ = Round(choose(adversary=mode))
            while round_.stage not in (stage, "done"):
                round_.play()
            client = round_.clients[1]
            expected = CLIENT[mode].get(client.phase, {})
            if kind in expected or (kind in by_kind and kind in client._seen):
                continue
            with pytest.raises(UnexpectedMessage):
                client.receive(data[1])
            assert client.phase is Phase.FAILED
            assert client._secrets is None


@pytest.mark.parametrize("mode", MODES)
def test_the_server_refuses_every_message_its_phase_has_no_row_for_and_goes_on(mode):
    full = Round(choose(adversary=mode))
    full.finish()
    everything = [data[1] for data in [*full.down.values(), *full.up.values()]]
    round_ = Round(choose(adversary=mode))
    while round_.server.phase is not Phase.DONE:
        own = full.up[round_.stage][1]
        for data in everything:
            if data != own:
                with pytest.raises(UnexpectedMessage) as caught:
                    round_.server.receive(1, data)
                assert caught.value.sender == 1
                assert caught.value.phase == round_.stage
        round_.play()
    assert round_.server.result.totals["v"].tolist() == full.server.result.totals["v"].tolist()


@pytest.mark.parametrize("mode", MODES)
def test_calls_out_of_order_raise_and_change_nothing(mode):
    round_ = Round(choose(adversary=mode))
    for stage in list(STAGES[mode]):
        for client in round_.clients.values():
            with pytest.raises(LocalProtocolError):
                client.mask(round_.inputs[0])
        with pytest.raises(LocalProtocolError):
            _ = round_.server.result
        assert round_.stage == stage.value
        round_.play()
    with pytest.raises(LocalProtocolError):
        round_.server.advance()
    with pytest.raises(LocalProtocolError):
        round_.server.message_for(0)
    assert round_.server.result.survivors == tuple(range(8))
