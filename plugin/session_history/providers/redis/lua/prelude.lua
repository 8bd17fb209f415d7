local CORRUPT, NOTHING, DONE, REPLAYED = -1, 0, 1, 2
local HEAD, HEAD_BYTES = '>BdddddddBI4I4I4I4', 74
local GRAVE, GRAVE_BYTES = '>BBdd', 18
local NEVER_DELETED, DELETED, DELETED_BEFORE = 0, 1, 2
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

local function opened(raw, without_card)
  if #raw < HEAD_BYTES or string.byte(raw) ~= 1 then
    return nil
  end
  local _, generation, seq, heartbeat, rewrites, active, expires, snapshot_seq, reborn, a, b, c, d = struct.unpack(HEAD, raw)
  b, c, d = a + b, a + b + c, a + b + c + d
  if not (generation >= 0 and seq > 0 and active >= 0 and expires >= 0) or d > #raw - HEAD_BYTES then
    return nil
  end
  return {
    generation = generation, seq = seq, heartbeat = heartbeat, rewrites = rewrites, active = active, expires = expires,
    snapshot_seq = snapshot_seq, reborn = reborn,
    tail_id = raw:sub(HEAD_BYTES + 1, HEAD_BYTES + a),
    snapshot_id = raw:sub(HEAD_BYTES + a + 1, HEAD_BYTES + b),
    mark = raw:sub(HEAD_BYTES + b + 1, HEAD_BYTES + c),
    user = raw:sub(HEAD_BYTES + c + 1, HEAD_BYTES + d),
    summary = not without_card and raw:sub(HEAD_BYTES + d + 1) or nil,
  }
end

local function closed(head)
  return struct.pack(HEAD, 1, head.generation, head.seq, head.heartbeat, head.rewrites, head.active, head.expires,
      head.snapshot_seq, head.reborn, #head.tail_id, #head.snapshot_id, #head.mark, #head.user)
    .. head.tail_id .. head.snapshot_id .. head.mark .. head.user .. head.summary
end

-- What a life that was not deleted leaves behind.
local function fate_of(head)
  return head.generation > 0 and head.reborn == 0 and DELETED_BEFORE or NEVER_DELETED
end

-- What is left of the last life that was deleted or may expire, if anything; its bytes; a flaw.
local function grave(session)
  local raw = redis.call('HGET', graves, session)
  if not raw then
    return nil, ''
  elseif #raw < GRAVE_BYTES or string.byte(raw) ~= 1 then
    return nil, raw, 'its tombstone is unreadable'
  end
  local _, fate, generation, active = struct.unpack(GRAVE, raw)
  return {generation = generation, active = active, fate = fate, marks = raw:sub(GRAVE_BYTES + 1)}, raw
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
    return nil, {generation = head.generation, active = head.active, fate = fate_of(head)}, raw
  end
  if redis.call('ZSCORE', index, session) or redis.call('EXISTS', entries, ids) > 0 then
    return nil, nil, '', 'its head is missing'
  end
  return nil, grave(session)
end

local function missing(head)
  if redis.call('LLEN', entries) ~= head.seq or redis.call('HLEN', ids) ~= head.seq then
    return 'entries or ids are missing'
  end
end

-- What a conflict shows: nothing of a session that expired.
local function shown(past, raw)
  return past and past.fate ~= DELETED and '' or raw
end

local function dig(session, fate, generation, active, marks)
  redis.call('HSET', graves, session, struct.pack(GRAVE, 1, fate, generation, active) .. marks)
end

-- A key of somebody else's is an error before anything is written, not after half of it.
local function insist_on_types()
  redis.call('HLEN', heads)
  redis.call('ZCARD', index)
  redis.call('HLEN', graves)
end
