local FIRST_KEY = 16
local session, asked, user, id, entry = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local generation, seq, tail_origin, origin = tonumber(ARGV[6]), tonumber(ARGV[7]), ARGV[8], ARGV[9]
local is_bookkeeping, ttl, waits = ARGV[10] == '1', tonumber(ARGV[11]), ARGV[12] == '1'
local staged, pieces, owner, answer
if entry:byte() >= IN_PIECES then
  staged, pieces = KEYS[#KEYS - 1], KEYS[#KEYS]
end
local tombstone_count = require_key_types()
local head, tombstone, raw, flaw = find(session, entries, ids)
flaw = flaw or head and missing_part(head)
if flaw then
  answer = {CORRUPT, flaw, raw}
elseif head then
  -- The writer saw no session, since all earlier ones had expired. It may continue this one as well as the first.
  local recreated = head.follows_expired == 1 and generation == 0 and seq == 0
  local known_seq = (recreated or generation == head.generation) and redis.call('HGET', ids, id)
  local known, damage
  if known_seq then
    known_seq, damage = seq_of(head, known_seq)
  end
  if damage then
    answer = {CORRUPT, damage, raw}
  elseif known_seq then
    if waits then
      redis.call('HSET', heads, session, raw) -- WAIT counts only replicas that have a write of this connection
    end
    answer = {REPLAYED, head.generation, known_seq}
  elseif generation == head.generation and ARGV[FIRST_KEY] then
    known = {}
    for place, seq_of_key in ipairs(redis.call('HMGET', ids, unpack(ARGV, FIRST_KEY))) do
      known[#known + 1] = seq_of_key and ARGV[FIRST_KEY + place - 1] or nil
    end
  end
  if not answer and (generation ~= head.generation or seq ~= head.seq or (known and known[1])
      or (tail_origin ~= '' and tail_origin ~= '=' .. head.tail_origin)) then
    answer = {UNCHANGED, raw, recreated and 1 or 0, unpack(known or {})}
  elseif not answer and (ttl > 0 or head.expires > 0) and large_seqs(ids) ~= asked then
    answer = {PIECES, large_seqs(ids)}
  end
else
  local next_generation = tombstone and tombstone.generation + 1 or 0
  if seq ~= 0 or generation ~= (tombstone and tombstone.history == DELETED and next_generation or 0) then
    answer = {UNCHANGED, visible(tombstone, raw)}
  else
    owner = user
    redis.call('UNLINK', entries, ids)
    head = {
      generation = next_generation, seq = 0, heartbeat = 0, active = 0, changed = tombstone and tombstone.changed or 0,
      expires = 0, id_count = 0, snapshot_seq = 0,
      follows_expired = tombstone and tombstone.history == NEVER_DELETED and 1 or 0,
      tail_origin = '', snapshot_origin = '', rewrite_id = '', summary = '',
    }
  end
end
if staged and not answer and not place_pieces(head, entry, head.seq + 1, staged, pieces) then
  answer = {UNSTAGED}
end
if answer then
  if staged and answer[1] ~= PIECES then
    redis.call('UNLINK', staged)
  end
  return answer
end
head.seq = head.seq + 1
head.tail_origin = origin
head.changed = math.max(now(), head.changed + 1)
if owner or not is_bookkeeping then
  head.active = head.changed
  redis.call('ZADD', index, integer(-head.active), session)
end
if ARGV[13] ~= '' then
  head.snapshot_seq, head.snapshot_origin, head.summary = tonumber(ARGV[13]), ARGV[14], ARGV[15]
end
redis.call('RPUSH', entries, entry)
head.id_count = head.id_count + redis.call('HSET', ids, id, integer(head.seq))
for place = FIRST_KEY, #ARGV do
  head.id_count = head.id_count + redis.call('HSET', ids, ARGV[place], integer(head.seq))
end
