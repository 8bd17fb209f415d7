local CORRUPT, UNCHANGED, DONE, REPLAYED = -1, 0, 1, 2
local HEAD, HEAD_BYTES = '>BdddddddBI4I4I4I4', 74
local TOMBSTONE, TOMBSTONE_BYTES = '>BBdd', 18
local NEVER_DELETED, DELETED, DELETED_BEFORE = 0, 1, 2
local heads, index, tombstones, entries, ids = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]

local function integer(number)
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

-- Return nil if the bytes are not a head.
local function decode_head(raw, without_summary)
  if #raw < HEAD_BYTES or string.byte(raw) ~= 1 then
    return nil
  end
  local _, generation, seq, heartbeat, rewrites, active, expires, snapshot_seq, follows_expired, a, b, c, d =
    struct.unpack(HEAD, raw)
  b, c, d = a + b, a + b + c, a + b + c + d
  if not (generation >= 0 and seq > 0 and active >= 0 and expires >= 0) or d > #raw - HEAD_BYTES then
    return nil
  end
  return {
    generation = generation, seq = seq, heartbeat = heartbeat, rewrites = rewrites, active = active, expires = expires,
    snapshot_seq = snapshot_seq, follows_expired = follows_expired,
    tail_id = raw:sub(HEAD_BYTES + 1, HEAD_BYTES + a),
    snapshot_id = raw:sub(HEAD_BYTES + a + 1, HEAD_BYTES + b),
    rewrite_id = raw:sub(HEAD_BYTES + b + 1, HEAD_BYTES + c),
    user = raw:sub(HEAD_BYTES + c + 1, HEAD_BYTES + d),
    summary = not without_summary and raw:sub(HEAD_BYTES + d + 1) or nil,
  }
end

local function encode_head(head)
  return struct.pack(HEAD, 1, head.generation, head.seq, head.heartbeat, head.rewrites, head.active, head.expires,
      head.snapshot_seq, head.follows_expired, #head.tail_id, #head.snapshot_id, #head.rewrite_id, #head.user)
    .. head.tail_id .. head.snapshot_id .. head.rewrite_id .. head.user .. head.summary
end

-- The history of a session that expired with this head.
local function history_of(head)
  return head.generation > 0 and head.follows_expired == 0 and DELETED_BEFORE or NEVER_DELETED
end

-- Return the tombstone of a session or nil, its bytes, and a flaw or nil.
local function read_tombstone(session)
  local raw = redis.call('HGET', tombstones, session)
  if not raw then
    return nil, ''
  elseif #raw < TOMBSTONE_BYTES or string.byte(raw) ~= 1 then
    return nil, raw, 'its tombstone is unreadable'
  end
  local _, history, generation, active = struct.unpack(TOMBSTONE, raw)
  return {generation = generation, active = active, history = history, call_ids = raw:sub(TOMBSTONE_BYTES + 1)}, raw
end

local function write_tombstone(session, history, generation, active, call_ids)
  redis.call('HSET', tombstones, session, struct.pack(TOMBSTONE, 1, history, generation, active) .. call_ids)
end

-- Return four values: the head of a live session; or else its tombstone, if it was deleted or expired; the bytes of
-- the head or the tombstone; a flaw. The first, second and fourth may be nil.
local function find(session, entries, ids)
  local raw = redis.call('HGET', heads, session)
  if raw then
    local head = decode_head(raw)
    if not head then
      return nil, nil, raw, 'its head is unreadable'
    elseif head.expires == 0 or head.expires > now() then
      return head, nil, raw
    end
    return nil, {generation = head.generation, active = head.active, history = history_of(head)}, raw
  end
  if redis.call('ZSCORE', index, session) or redis.call('EXISTS', entries, ids) > 0 then
    return nil, nil, '', 'its head is missing'
  end
  return nil, read_tombstone(session)
end

-- Return the flaw of a session of which a part was lost.
local function missing_part(head)
  if redis.call('LLEN', entries) ~= head.seq or redis.call('HLEN', ids) ~= head.seq then
    return 'entries or ids are missing'
  end
end

-- Return the bytes that a caller may see of a session without a live head: none if it expired.
local function visible(tombstone, raw)
  return tombstone and tombstone.history ~= DELETED and '' or raw
end

-- A key of another program must fail the script before the script writes, not after half of it.
local function require_key_types()
  redis.call('HLEN', heads)
  redis.call('ZCARD', index)
  redis.call('HLEN', tombstones)
end
