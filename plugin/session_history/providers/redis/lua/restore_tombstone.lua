local TOMBSTONES_GRACE_MS = 604800000
local session, user, ttl, waits, raw_target = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4] == '1', ARGV[5]

local target, tombstone_count = decode_tombstone(raw_target), require_key_types()
local head, tombstone, raw, flaw = find(session, entries, ids)
local found = tombstone and tombstone.history == DELETED and tombstone
if flaw then
  return {CORRUPT, flaw, raw}
elseif head or (found and found.generation > target.generation) then
  return {UNCHANGED, raw}
elseif found and raw:sub(1, TOMBSTONE_BYTES) == raw_target then
  if waits then
    redis.call('HSET', tombstones, session, raw) -- WAIT counts only replicas that have a write of this connection
  end
  return {REPLAYED}
end
local before = read_tombstone(session)
redis.call('HSET', tombstones, OWNER, user)
write_tombstone(session, DELETED, target, before and before.call_ids or '')
if ttl == 0 then
  redis.call('PERSIST', tombstones)
else
  local at = integer(math.ceil((now() + ttl) / 1000) + TOMBSTONES_GRACE_MS)
  if tombstone_count <= 1 then
    redis.call('PEXPIREAT', tombstones, at)
  else
    redis.call('PEXPIREAT', tombstones, at, 'GT')
  end
end
redis.call('HDEL', heads, session) -- that of a session that expired
redis.call('ZREM', index, session)
redis.call('UNLINK', entries, ids)
return {DONE}
