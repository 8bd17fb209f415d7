local FIRST_ENTRY = 9
local session, given, user, ttl, waits = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), ARGV[5] == '1'
local first, behind, raw_head = tonumber(ARGV[6]), ARGV[7], ARGV[8]
local count = #ARGV - FIRST_ENTRY + 1

-- Return the entries that come with the call, each with the keys of its pieces.
local function decode_entries()
  local given_entries, place = {}, #KEYS + 1
  for number = count, 1, -1 do
    local raw = ARGV[FIRST_ENTRY + number - 1]
    local entry = decode_entry(raw)
    entry.raw = raw
    if is_large(raw) then
      place = place - 2
      entry.staged, entry.pieces = KEYS[place], KEYS[place + 1]
    end
    given_entries[number] = entry
  end
  return given_entries
end

-- Return true if the log has the same origins where it and the new entries overlap.
local function begins_equally(head, new)
  local start = math.max(first - 2, 0)
  for place, raw in ipairs(redis.call('LRANGE', entries, integer(start), integer(first + count - 2))) do
    local found, number = decode_entry(raw), start + place - first + 1
    if not found or found.origin ~= (number == 0 and behind or new[number].origin) then
      return false
    end
  end
  return true
end

-- Return the number of entries that stand already, or nil if another log stands there.
local function count_stored(head, tombstone, target, new)
  if not head then
    local is_later = tombstone and tombstone.history == DELETED and tombstone.generation >= target.generation
    return first == 1 and not is_later and 0 or nil
  elseif head.generation ~= target.generation or head.rewrite_id ~= target.rewrite_id or head.seq < first - 1 then
    return nil
  end
  return begins_equally(head, new) and math.min(head.seq - first + 1, count) or nil
end

-- Write what stands there again, since WAIT counts only replicas that have a write of this connection.
local function leave(key, raw)
  if waits then
    redis.call('HSET', key, session, raw)
  end
  return {REPLAYED}
end

local function restore_log(head, tombstone, raw, new)
  local target = decode_head(raw_head)
  local stored = count_stored(head, tombstone, target, new)
  if not stored then
    return {UNCHANGED, visible(tombstone, raw)}
  elseif stored == count then
    return leave(heads, raw)
  elseif head and (ttl > 0 or head.expires > 0) and large_seqs(ids) ~= given then
    return {PIECES, large_seqs(ids)}
  end
  for number = stored + 1, count do
    if new[number].staged and not is_staged(new[number].raw, new[number].staged) then
      return {UNSTAGED}
    end
  end
  if head then
    target.id_count, target.expires = head.id_count, head.expires
  else
    redis.call('UNLINK', entries, ids)
  end
  target.seq = first + stored - 1
  for number = stored + 1, count do
    local entry = new[number]
    if entry.staged then
      place_pieces(target, target.seq + 1, entry.staged, entry.pieces)
    end
    push(target, entry.raw, entry.origin, entry.names)
  end
  redis.call('ZADD', index, integer(-target.active), session)
  store_head(session, target, ttl, not head and user)
  return {DONE}
end

local function restore_tombstone(head, tombstone, raw)
  local target, found = decode_tombstone(raw_head), tombstone and tombstone.history == DELETED and tombstone
  if head or (found and found.generation > target.generation) then
    return {UNCHANGED, raw}
  elseif found and raw:sub(1, TOMBSTONE_BYTES) == raw_head then
    return leave(tombstones, raw)
  end
  local before, is_first_tombstone = read_tombstone(session), redis.call('HLEN', tombstones) <= 1
  redis.call('HSET', tombstones, OWNER, user)
  write_tombstone(session, DELETED, target, before and before.call_ids or '')
  if ttl > 0 then
    extend_expiry(tombstones, is_first_tombstone, math.ceil((now() + ttl) / 1000) + TOMBSTONES_GRACE_MS)
  else
    redis.call('PERSIST', tombstones)
  end
  redis.call('HDEL', heads, session) -- that of a session that expired
  redis.call('ZREM', index, session)
  redis.call('UNLINK', entries, ids)
  return {DONE}
end

require_key_types()
local head, tombstone, raw, flaw = find(session, entries, ids)
flaw = flaw or head and missing_part(head)
if flaw then
  return {CORRUPT, flaw, raw}
elseif count == 0 then
  return restore_tombstone(head, tombstone, raw)
end
local new = decode_entries()
local answer = restore_log(head, tombstone, raw, new)
if answer[1] ~= PIECES then
  for _, entry in ipairs(new) do
    if entry.staged then
      redis.call('UNLINK', entry.staged)
    end
  end
end
return answer
