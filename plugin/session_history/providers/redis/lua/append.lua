local HEADS_GRACE_MS, TOMBSTONES_GRACE_MS, SAMPLE = 1000, 604800000, 8

-- Each append looks at more sessions than it can add, so that few expired ones remain.
local function remove_some_expired()
  for _, session in ipairs(redis.call('ZRANDMEMBER', index, SAMPLE)) do
    local raw = redis.call('HGET', heads, session)
    local head = raw and decode_head(raw, true)
    if head and head.expires > 0 and head.expires <= now() then
      redis.call('HDEL', heads, session)
      redis.call('ZREM', index, session)
    end
  end
end

-- Set the expiry of a key, and never to an earlier time unless nothing else needs the key.
local function extend_expiry(key, unshared, at)
  if unshared then
    redis.call('PEXPIREAT', key, integer(at))
  else
    redis.call('PEXPIREAT', key, integer(at), 'GT')
  end
end

local session, user, id, entry = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local generation, seq, ttl, waits = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7]), ARGV[8] == '1'
require_key_types()
local head, tombstone, raw, flaw = find(session, entries, ids)
flaw = flaw or head and missing_part(head)
if flaw then
  return {CORRUPT, flaw, raw}
elseif head then
  -- The writer saw no session, since all earlier ones had expired. It may continue this one as well as the first.
  local recreated = head.follows_expired == 1 and generation == 0 and seq == 0 and 1 or 0
  if recreated == 1 then
    generation = head.generation
  end
  if generation ~= head.generation then
    return {UNCHANGED, raw}
  end
  local known_seq = redis.call('HGET', ids, id)
  if known_seq then
    if waits then
      redis.call('HSET', heads, session, raw) -- WAIT counts only replicas that have a write of this connection
    end
    return {REPLAYED, generation, known_seq}
  elseif seq ~= head.seq then
    return {UNCHANGED, raw, recreated}
  end
else
  local next_generation = tombstone and tombstone.generation + 1 or 0
  if seq ~= 0 or generation ~= (tombstone and tombstone.history == DELETED and next_generation or 0) then
    return {UNCHANGED, visible(tombstone, raw)}
  end
  redis.call('UNLINK', entries, ids)
  head = {
    generation = next_generation, seq = 0, heartbeat = 0, rewrites = 0, active = tombstone and tombstone.active or 0,
    expires = 0, snapshot_seq = 0,
    follows_expired = tombstone and tombstone.history == NEVER_DELETED and 1 or 0,
    tail_id = '', snapshot_id = '', rewrite_id = '', user = user, summary = '',
  }
end
local expired = head.expires
head.seq = head.seq + 1
head.tail_id = id
head.active = math.max(now(), head.active + 1)
head.expires = ttl > 0 and now() + ttl or 0 -- not from `active`, which a clock that was ahead may have set
if ARGV[9] then
  head.snapshot_seq, head.snapshot_id, head.summary = tonumber(ARGV[9]), ARGV[10], ARGV[11]
end
local new_heads, new_tombstones = false, false
if ttl > 0 then
  new_heads, new_tombstones = redis.call('EXISTS', heads) == 0, redis.call('EXISTS', tombstones) == 0
end
redis.call('RPUSH', entries, entry)
redis.call('HSET', ids, id, integer(head.seq))
redis.call('HSET', heads, session, encode_head(head))
redis.call('ZADD', index, integer(-head.active), session)
if ttl > 0 then
  local at = math.ceil(head.expires / 1000)
  if expired == 0 then
    local before = read_tombstone(session)
    write_tombstone(session, history_of(head), head.generation, head.active, before and before.call_ids or '')
  end
  redis.call('PEXPIREAT', entries, integer(at))
  redis.call('PEXPIREAT', ids, integer(at))
  local unshared = new_heads or redis.call('HLEN', heads) == 1
  extend_expiry(heads, unshared, at + HEADS_GRACE_MS)
  extend_expiry(index, unshared, at + HEADS_GRACE_MS)
  extend_expiry(tombstones, new_tombstones, at + TOMBSTONES_GRACE_MS)
elseif expired > 0 or redis.call('PTTL', heads) >= 0 then
  for _, key in ipairs(KEYS) do
    redis.call('PERSIST', key)
  end
end
if redis.call('EXISTS', tombstones) == 1 then -- every session that may expire has a tombstone
  remove_some_expired()
end
return {DONE, head.generation, head.seq}
