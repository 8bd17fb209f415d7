"""The scripts that the server runs, each one atomic step.

The keys of a user, all in one slot of a cluster:

=========  ==========  ==============================================================================
``heads``  hash        session id -> head, of the sessions that live
``index``  sorted set  session id, by ``-active_us``: sessions of one moment stand in the order of their bytes
``graves`` hash        session id -> grave: what is left of a session that was deleted, or that may expire
=========  ==========  ==============================================================================

and of a session:

===========  ====  =====================================================
``entries``  list  the entries, seq 1 first
``ids``      hash  entry id -> seq
===========  ====  =====================================================

See :mod:`~session_history.providers.redis.packing` for heads, graves and entries. A number in Lua is a double, exact
up to 2**53, and Lua compares strings by the locale: bytes are compared one by one.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

CORRUPT, NOTHING, DONE, REPLAYED = -1, 0, 1, 2
"""The first element of an answer. ``CORRUPT`` is followed by the flaw."""

_PRELUDE = """
local CORRUPT, NOTHING, DONE, REPLAYED = -1, 0, 1, 2
local HEAD, HEAD_BYTES = '>BdddddddBI4I4I4I4', 74
local GRAVE, GRAVE_BYTES = '>BBdd', 18
local heads, index, graves, entries, ids = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]

local function whole(number)
  return string.format('%.0f', number)
end

local clock
local function now()
  if not clock then
    local time = redis.call('TIME')
    clock = time[1] * 1000000 + time[2]
  end
  return clock
end

local function opened(raw)
  if #raw < HEAD_BYTES or string.byte(raw) ~= 1 then
    return nil
  end
  local _, generation, seq, beat, edits, active, expires, fold_seq, reborn, a, b, c, d = struct.unpack(HEAD, raw)
  b, c, d = a + b, a + b + c, a + b + c + d
  if not (generation >= 0 and seq > 0 and active >= 0 and expires >= 0) or d > #raw - HEAD_BYTES then
    return nil
  end
  return {
    generation = generation, seq = seq, beat = beat, edits = edits, active = active, expires = expires,
    fold_seq = fold_seq, reborn = reborn,
    tail_id = raw:sub(HEAD_BYTES + 1, HEAD_BYTES + a),
    fold_id = raw:sub(HEAD_BYTES + a + 1, HEAD_BYTES + b),
    mark = raw:sub(HEAD_BYTES + b + 1, HEAD_BYTES + c),
    user = raw:sub(HEAD_BYTES + c + 1, HEAD_BYTES + d),
    card = raw:sub(HEAD_BYTES + d + 1),
  }
end

local function closed(head)
  return struct.pack(HEAD, 1, head.generation, head.seq, head.beat, head.edits, head.active, head.expires,
      head.fold_seq, head.reborn, #head.tail_id, #head.fold_id, #head.mark, #head.user)
    .. head.tail_id .. head.fold_id .. head.mark .. head.user .. head.card
end

-- The head of a session that lives, or else what is known of its past, if anything; the bytes of either; a flaw.
local function find(session, entries, ids)
  local raw = redis.call('HGET', heads, session)
  if raw then
    local head = opened(raw)
    if not head then
      return nil, nil, raw, 'its head is unreadable'
    elseif head.expires == 0 or head.expires > now() then
      return head, nil, raw
    end
    return nil, {generation = head.generation, active = head.active, deleted = false, mark = ''}, raw
  end
  if redis.call('ZSCORE', index, session) or redis.call('EXISTS', entries, ids) > 0 then
    return nil, nil, '', 'its head is missing'
  end
  raw = redis.call('HGET', graves, session)
  if not raw then
    return nil, nil, ''
  elseif #raw < GRAVE_BYTES or string.byte(raw) ~= 1 then
    return nil, nil, raw, 'its tombstone is unreadable'
  end
  local _, deleted, generation, active = struct.unpack(GRAVE, raw)
  return nil, {generation = generation, active = active, deleted = deleted == 1, mark = raw:sub(GRAVE_BYTES + 1)}, raw
end

local function missing(head)
  if redis.call('LLEN', entries) ~= head.seq or redis.call('HLEN', ids) ~= head.seq then
    return 'entries or ids are missing'
  end
end

-- What a conflict shows: nothing of a session that expired.
local function shown(past, raw)
  return past and not past.deleted and '' or raw
end

local function dig(session, deleted, generation, active, mark)
  redis.call('HSET', graves, session, struct.pack(GRAVE, 1, deleted, generation, active) .. mark)
end
"""

_READ = """
local session, start, stop, id = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4]
local head, past, raw, flaw = find(session, entries, ids)
flaw = flaw or head and missing(head)
if flaw then
  return {CORRUPT, flaw, raw}
elseif not head then
  return {DONE, shown(past, raw), {}}
end
local answer = {DONE, raw, start and redis.call('LRANGE', entries, ARGV[2], stop) or {}}
local found = id and redis.call('HGET', ids, id)
if found then
  answer[4], answer[5] = found, redis.call('LINDEX', entries, found - 1)
end
return answer
"""

_APPEND = """
local EXPIRED_AFTER, GRAVE_AFTER, SAMPLE = 1000, 604800000, 8

-- Some sessions that expired, so that their number stays small: each append looks at a few more than it can add.
local function sweep()
  for _, session in ipairs(redis.call('ZRANDMEMBER', index, SAMPLE)) do
    local raw = redis.call('HGET', heads, session)
    local head = raw and opened(raw)
    if head and head.expires > 0 and head.expires <= now() then
      redis.call('HDEL', heads, session)
      redis.call('ZREM', index, session)
    end
  end
end

local function keep(key, fresh, at)
  if fresh then
    redis.call('PEXPIREAT', key, whole(at))
  else
    redis.call('PEXPIREAT', key, whole(at), 'GT')
  end
end

local session, user, id, entry = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local generation, seq, ttl, waits = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7]), ARGV[8] == '1'
local head, past, raw, flaw = find(session, entries, ids)
flaw = flaw or head and missing(head)
if flaw then
  return {CORRUPT, flaw, raw}
elseif head then
  if head.reborn == 1 and generation == 0 and seq == 0 then
    generation = head.generation
  end
  if generation ~= head.generation then
    return {NOTHING, raw}
  end
  local known = redis.call('HGET', ids, id)
  if known then
    if waits then
      redis.call('HSET', heads, session, raw)
    end
    return {REPLAYED, generation, known}
  elseif seq ~= head.seq then
    return {NOTHING, raw}
  end
else
  local next = past and past.generation + 1 or 0
  if seq ~= 0 or generation ~= (past and past.deleted and next or 0) then
    return {NOTHING, shown(past, raw)}
  end
  redis.call('UNLINK', entries, ids)
  head = {
    generation = next, seq = 0, beat = 0, edits = 0, active = past and past.active or 0, expires = 0,
    fold_seq = 0, reborn = past and not past.deleted and 1 or 0,
    tail_id = '', fold_id = '', mark = '', user = user, card = '',
  }
end
local expired = head.expires
head.seq = head.seq + 1
head.tail_id = id
head.active = math.max(now(), head.active + 1)
head.expires = ttl > 0 and head.active + ttl or 0
if ARGV[9] then
  head.fold_seq, head.fold_id, head.card = tonumber(ARGV[9]), ARGV[10], ARGV[11]
end
local fresh, no_grave = false, false
if ttl > 0 then
  fresh, no_grave = redis.call('EXISTS', heads) == 0, redis.call('EXISTS', graves) == 0
end
redis.call('RPUSH', entries, entry)
redis.call('HSET', ids, id, whole(head.seq))
redis.call('HSET', heads, session, closed(head))
redis.call('ZADD', index, whole(-head.active), session)
if ttl > 0 then
  local at = math.ceil(head.expires / 1000)
  if expired == 0 then
    dig(session, 0, head.generation, head.active, '')
  end
  redis.call('PEXPIREAT', entries, whole(at))
  redis.call('PEXPIREAT', ids, whole(at))
  keep(heads, fresh, at + EXPIRED_AFTER)
  keep(index, fresh, at + EXPIRED_AFTER)
  keep(graves, no_grave, at + GRAVE_AFTER)
  sweep()
elseif expired > 0 or redis.call('PTTL', heads) >= 0 then
  for _, key in ipairs(KEYS) do
    redis.call('PERSIST', key)
  end
end
return {DONE, head.generation, head.seq}
"""

_RENEW = """
local session, generation, seq = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local head, _, raw, flaw = find(session, entries, ids)
if flaw then
  return {CORRUPT, flaw, raw}
elseif not head or head.generation ~= generation or head.seq ~= seq then
  return {NOTHING}
end
head.beat = head.beat + 1
redis.call('HSET', heads, session, closed(head))
return {DONE}
"""

_REWRITE = """
local session, id, entry = ARGV[1], ARGV[2], ARGV[3]
local generation, seq, edits, mark = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6]), ARGV[7]
local head, past, raw, flaw = find(session, entries, ids)
flaw = flaw or head and missing(head)
if flaw then
  return {CORRUPT, flaw, raw}
elseif not head then
  return {NOTHING, shown(past, raw)}
elseif head.mark == mark then
  return {DONE, raw}
elseif head.generation ~= generation or head.edits ~= edits or redis.call('HGET', ids, id) ~= whole(seq) then
  return {NOTHING, raw}
end
head.edits = edits + 1
head.mark = mark
head.fold_seq, head.fold_id, head.card = tonumber(ARGV[8] or 0), ARGV[9] or '', ARGV[10] or ''
raw = closed(head)
redis.call('LSET', entries, whole(seq - 1), entry)
redis.call('HSET', heads, session, raw)
return {DONE, raw}
"""

_DELETE = """
-- What is damaged can be deleted, too, as long as its generation is known.
local function bury(session, mark, entries, ids)
  local head, past, raw, flaw = find(session, entries, ids)
  if flaw then
    return CORRUPT
  elseif not head and past and past.deleted then
    return past.mark == mark and DONE or NOTHING
  elseif head then
    dig(session, 1, head.generation, math.max(now(), head.active + 1), mark)
  end
  redis.call('HDEL', heads, session)
  redis.call('ZREM', index, session)
  redis.call('UNLINK', entries, ids)
  return head and DONE or NOTHING
end

local answer = {DONE}
for place = 2, #ARGV do
  answer[place] = bury(ARGV[place], ARGV[1], KEYS[2 * place], KEYS[2 * place + 1])
end
return answer
"""

_SESSIONS = """
return {1, redis.call('HKEYS', KEYS[1])}
"""

_LIST = """
local MOST, CHUNK = 1000, 100

local function behind(one, other)
  for place = 1, math.min(#one, #other) do
    local left, right = one:byte(place), other:byte(place)
    if left ~= right then
      return left > right
    end
  end
  return #one > #other
end

local limit, score, start = tonumber(ARGV[1]), ARGV[2], 0
local total = redis.call('ZCARD', index)
if redis.call('HLEN', heads) ~= total then
  return {CORRUPT, 'its heads and its index differ', ''}
elseif score then
  start = redis.call('ZCOUNT', index, '-inf', '(' .. score)
  for _, session in ipairs(redis.call('ZRANGEBYSCORE', index, score, score)) do
    start = start + (behind(session, ARGV[3]) and 0 or 1)
  end
end
local found, stop, answer = 0, math.min(total, start + MOST), {}
while start < stop and found < limit do
  local sessions = redis.call('ZRANGE', index, start, math.min(stop, start + math.min(CHUNK, limit - found)) - 1)
  for place, raw in ipairs(redis.call('HMGET', heads, unpack(sessions))) do
    local head = raw and opened(raw)
    if not head then
      return {CORRUPT, 'a head is missing or unreadable', raw or ''}
    elseif head.expires == 0 or head.expires > now() then
      found = found + 1
      answer[2 * found - 1], answer[2 * found] = sessions[place], raw
    end
  end
  start = start + #sessions
end
if start < total then
  local last = redis.call('ZRANGE', index, start - 1, start - 1, 'WITHSCORES')
  return {DONE, answer, last[1], last[2]}
end
return {DONE, answer}
"""


@dataclass(frozen=True, slots=True)
class Script:
    """A script and the name that the server knows it by, once it has seen it."""

    text: str = field(repr=False)
    name: str

    @classmethod
    def of(cls, body: str, flags: str = "") -> Script:
        text = f"#!lua {flags}".strip() + _PRELUDE + body
        return cls(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


READ = Script.of(_READ, "flags=no-writes")
APPEND = Script.of(_APPEND)
RENEW = Script.of(_RENEW)
REWRITE = Script.of(_REWRITE)
DELETE = Script.of(_DELETE, "flags=allow-oom")
SESSIONS = Script.of(_SESSIONS, "flags=no-writes")
LIST = Script.of(_LIST, "flags=no-writes")
