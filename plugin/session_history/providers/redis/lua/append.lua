local FIRST_KEY = 16
local session, given, user, id, entry = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local generation, seq, tail_origin, origin = tonumber(ARGV[6]), tonumber(ARGV[7]), ARGV[8], ARGV[9]
local is_bookkeeping, ttl, waits = ARGV[10] == '1', tonumber(ARGV[11]), ARGV[12] == '1'
local staged, pieces
if is_large(entry) then
  staged, pieces = KEYS[#KEYS - 1], KEYS[#KEYS]
end

-- Return the keys of the entry that this generation has already.
local function known_keys()
  local known = {}
  if #ARGV >= FIRST_KEY then
    for place, known_seq in ipairs(redis.call('HMGET', ids, unpack(ARGV, FIRST_KEY))) do
      if known_seq then
        known[#known + 1] = ARGV[FIRST_KEY + place - 1]
      end
    end
  end
  return known
end

-- Return an answer if the entry must not be stored behind this head.
local function refuse(head, raw)
  -- The writer saw no session, since all earlier ones had expired. It may continue this one as well as the first.
  local recreated = head.follows_expired == 1 and generation == 0 and seq == 0
  if generation ~= head.generation and not recreated then
    return {UNCHANGED, raw}
  end
  local known_seq = redis.call('HGET', ids, id)
  if known_seq then
    if waits then
      redis.call('HSET', heads, session, raw) -- WAIT counts only replicas that have a write of this connection
    end
    return {REPLAYED, head.generation, known_seq}
  end
  local known = recreated and {} or known_keys()
  if #known > 0 or not ends_at(head, seq, tail_origin) then
    return {UNCHANGED, raw, recreated and 1 or 0, unpack(known)}
  elseif (ttl > 0 or head.expires > 0) and large_seqs(ids) ~= given then
    return {PIECES, large_seqs(ids)}
  end
end

-- Return the head of a session that begins, or nil and an answer.
local function begin(tombstone, raw)
  local next_generation = tombstone and tombstone.generation + 1 or 0
  if seq ~= 0 or generation ~= (tombstone and tombstone.history == DELETED and next_generation or 0) then
    return nil, {UNCHANGED, visible(tombstone, raw)}
  end
  return {
    generation = next_generation, seq = 0, heartbeat = 0, active = 0, changed = tombstone and tombstone.changed or 0,
    expires = 0, id_count = 0, snapshot_seq = 0,
    follows_expired = tombstone and tombstone.history == NEVER_DELETED and 1 or 0,
    tail_origin = '', snapshot_origin = '', rewrite_id = '', summary = '',
  }
end

local function append()
  require_key_types()
  local head, tombstone, raw, flaw = find(session, entries, ids)
  local is_new, answer = not head, nil
  flaw = flaw or head and missing_part(head)
  if flaw then
    return {CORRUPT, flaw, raw}
  elseif head then
    answer = refuse(head, raw)
  else
    head, answer = begin(tombstone, raw)
  end
  if answer then
    return answer
  elseif staged and not is_staged(entry, staged) then
    return {UNSTAGED}
  elseif is_new then
    redis.call('UNLINK', entries, ids)
  end
  if staged then
    place_pieces(head, head.seq + 1, staged, pieces)
  end
  head.changed = math.max(now(), head.changed + 1)
  if is_new or not is_bookkeeping then
    head.active = head.changed
    redis.call('ZADD', index, integer(-head.active), session)
  end
  if ARGV[13] ~= '' then
    head.snapshot_seq, head.snapshot_origin, head.summary = tonumber(ARGV[13]), ARGV[14], ARGV[15]
  end
  push(head, entry, origin, {id, unpack(ARGV, FIRST_KEY)})
  store_head(session, head, ttl, is_new and user)
  return {DONE, head.generation, head.seq}
end

local answer = append()
if staged and answer[1] ~= PIECES then
  redis.call('UNLINK', staged)
end
return answer
