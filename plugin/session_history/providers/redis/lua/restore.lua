local FIRST_ENTRY = 9
local session, asked, user, ttl, waits = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), ARGV[5] == '1'
local first, behind, head = tonumber(ARGV[6]), ARGV[7], decode_head(ARGV[8])
local count, new, large, owner, answer = #ARGV - FIRST_ENTRY + 1, {}, nil, nil, nil
for number = 1, count do
  new[number] = decode_entry(ARGV[FIRST_ENTRY + number - 1])
  if new[number].flags >= IN_PIECES then
    large = number -- there is at most one
  end
end
local staged, pieces = large and KEYS[#KEYS - 1], large and KEYS[#KEYS]

-- Return the number of entries that stand already, or nil if another log stands there.
local function count_stored(found, tombstone)
  if not found then
    local is_later = tombstone and tombstone.history == DELETED and tombstone.generation >= head.generation
    return first == 1 and not is_later and 0 or nil
  elseif found.generation ~= head.generation or found.rewrite_id ~= head.rewrite_id or found.seq < first - 1 then
    return nil
  end
  local start = math.max(first - 2, 0)
  for place, raw in ipairs(redis.call('LRANGE', entries, integer(start), integer(first + count - 2))) do
    local entry, number = decode_entry(raw), start + place - first + 1
    if not entry or entry.origin ~= (number == 0 and behind or new[number].origin) then
      return nil
    end
  end
  return math.min(found.seq - first + 1, count)
end

local tombstone_count = require_key_types()
local found, tombstone, raw, flaw = find(session, entries, ids)
flaw = flaw or found and missing_part(found)
local stored = not flaw and count_stored(found, tombstone)
if flaw then
  answer = {CORRUPT, flaw, raw}
elseif not stored then
  answer = {UNCHANGED, visible(tombstone, raw)}
elseif stored == count then
  if waits then
    redis.call('HSET', heads, session, raw) -- WAIT counts only replicas that have a write of this connection
  end
  answer = {REPLAYED}
elseif found then
  head.id_count, head.expires = found.id_count, found.expires
  if (ttl > 0 or found.expires > 0) and large_seqs(ids) ~= asked then
    answer = {PIECES, large_seqs(ids)}
  end
else
  owner = user
  redis.call('UNLINK', entries, ids)
end
if not answer and large and large > stored and not place_pieces(head, ARGV[FIRST_ENTRY + large - 1], first + large - 1,
    staged, pieces) then
  answer = {UNSTAGED}
end
if answer then
  if staged and answer[1] ~= PIECES then
    redis.call('UNLINK', staged)
  end
  return answer
end
for number = stored + 1, count do
  redis.call('RPUSH', entries, ARGV[FIRST_ENTRY + number - 1])
  for _, name in ipairs(new[number].names) do
    head.id_count = head.id_count + redis.call('HSET', ids, name, integer(first + number - 1))
  end
end
redis.call('ZADD', index, integer(-head.active), session)
