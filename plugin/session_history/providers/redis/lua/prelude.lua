local CORRUPT, UNCHANGED, DONE, REPLAYED, PIECES, UNSTAGED = -1, 0, 1, 2, 3, 4
local HEAD, HEAD_BYTES = '>BddddddddBBBB', 69
local TOMBSTONE, TOMBSTONE_BYTES = '>BBddd', 26
local NEVER_DELETED, DELETED, DELETED_BEFORE = 0, 1, 2
local OWNER, LARGE = '\255', '\255' -- fields of `tombstones` and `ids`; no id has this byte
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

-- Doubles hold whole numbers exactly up to 2^53.
local function are_counts(...)
  for place = 1, select('#', ...) do
    local number = select(place, ...)
    if not (number >= 0 and number <= 9007199254740992 and number % 1 == 0) then
      return false
    end
  end
  return true
end

-- Return nil if the bytes are not a head.
local function decode_head(raw, without_summary)
  if #raw < HEAD_BYTES or string.byte(raw) ~= 1 then
    return nil
  end
  local _, generation, seq, heartbeat, active, changed, expires, id_count, snapshot_seq, follows_expired, a, b, c =
    struct.unpack(HEAD, raw)
  b, c = a + b, a + b + c
  if seq == 0 or follows_expired > 1 or c > #raw - HEAD_BYTES
      or not are_counts(generation, seq, heartbeat, active, changed, expires, id_count, snapshot_seq) then
    return nil
  end
  return {
    generation = generation, seq = seq, heartbeat = heartbeat, active = active, changed = changed, expires = expires,
    id_count = id_count, snapshot_seq = snapshot_seq, follows_expired = follows_expired,
    tail_origin = raw:sub(HEAD_BYTES + 1, HEAD_BYTES + a),
    snapshot_origin = raw:sub(HEAD_BYTES + a + 1, HEAD_BYTES + b),
    rewrite_id = raw:sub(HEAD_BYTES + b + 1, HEAD_BYTES + c),
    summary = not without_summary and raw:sub(HEAD_BYTES + c + 1) or nil,
  }
end

local function encode_head(head)
  return struct.pack(HEAD, 1, head.generation, head.seq, head.heartbeat, head.active, head.changed, head.expires,
      head.id_count, head.snapshot_seq, head.follows_expired, #head.tail_origin, #head.snapshot_origin,
      #head.rewrite_id)
    .. head.tail_origin .. head.snapshot_origin .. head.rewrite_id .. head.summary
end

local function is_live(head)
  return head.expires == 0 or head.expires > now()
end

-- The history of a session that expired with this head.
local function history_of(head)
  return head.generation > 0 and head.follows_expired == 0 and DELETED_BEFORE or NEVER_DELETED
end

-- Return nil if the bytes are not a tombstone.
local function decode_tombstone(raw)
  if #raw < TOMBSTONE_BYTES or string.byte(raw) ~= 1 then
    return nil
  end
  local _, history, generation, active, changed = struct.unpack(TOMBSTONE, raw)
  if history > DELETED_BEFORE or not are_counts(generation, active, changed) then
    return nil
  end
  return {
    generation = generation, active = active, changed = changed, history = history,
    call_ids = raw:sub(TOMBSTONE_BYTES + 1),
  }
end

-- Return the tombstone of a session or nil, its bytes, and a flaw or nil.
local function read_tombstone(session)
  local raw = redis.call('HGET', tombstones, session)
  if not raw then
    return nil, ''
  end
  local tombstone = decode_tombstone(raw)
  return tombstone, raw, not tombstone and 'its tombstone is unreadable' or nil
end

local function write_tombstone(session, history, times, call_ids)
  local raw = struct.pack(TOMBSTONE, 1, history, times.generation, times.active, times.changed)
  redis.call('HSET', tombstones, session, raw .. call_ids)
end

-- Return four values: the head of a live session; or else its tombstone, if it was deleted or expired; the bytes of
-- the head or the tombstone; a flaw. The first, second and fourth may be nil.
local function find(session, entries, ids)
  local raw = redis.call('HGET', heads, session)
  if raw then
    local head = decode_head(raw)
    if not head then
      return nil, nil, raw, 'its head is unreadable'
    elseif is_live(head) then
      return head, nil, raw
    end
    local history = history_of(head)
    return nil, {generation = head.generation, active = head.active, changed = head.changed, history = history}, raw
  end
  if redis.call('ZSCORE', index, session) or redis.call('EXISTS', entries, ids) > 0 then
    return nil, nil, '', 'its head is missing'
  end
  return nil, read_tombstone(session)
end

-- Return the flaw of a session of which a part was lost.
local function missing_part(head)
  if redis.call('LLEN', entries) ~= head.seq or redis.call('HLEN', ids) ~= head.id_count then
    return 'entries or ids are missing'
  end
end

-- Return the seq that `ids` holds for an id, or nil and a flaw if it is none of this log.
local function seq_of(head, found)
  local seq = tonumber(found)
  if seq and seq % 1 == 0 and seq >= 1 and seq <= head.seq then
    return seq
  end
  return nil, 'an id has no valid seq'
end

-- Return the seqs of the entries that ever stood in pieces, each with a space behind it.
local function large_seqs(ids)
  return redis.call('HGET', ids, LARGE) or ''
end

-- Return the bytes that a caller may see of a session without a live head: none if it expired.
local function visible(tombstone, raw)
  return tombstone and tombstone.history ~= DELETED and '' or raw
end

-- Return the number of fields of `tombstones`. A key of another program must fail the script before the script writes,
-- not after half of it.
local function require_key_types()
  redis.call('HLEN', heads)
  redis.call('ZCARD', index)
  return redis.call('HLEN', tombstones)
end
