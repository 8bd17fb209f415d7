local EXPIRED_AFTER, GRAVE_AFTER, SAMPLE = 1000, 604800000, 8

-- Some sessions that expired, so that their number stays small: each append looks at a few more than it can add.
local function sweep()
  for _, session in ipairs(redis.call('ZRANDMEMBER', index, SAMPLE)) do
    local raw = redis.call('HGET', heads, session)
    local head = raw and opened(raw, true)
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
insist_on_types()
local head, past, raw, flaw = find(session, entries, ids)
flaw = flaw or head and missing(head)
if flaw then
  return {CORRUPT, flaw, raw}
elseif head then
  -- Its author saw no session, since those before had expired: it belongs to this life as much as to the first.
  local anew = head.reborn == 1 and generation == 0 and seq == 0 and 1 or 0
  if anew == 1 then
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
    return {NOTHING, raw, anew}
  end
else
  local next = past and past.generation + 1 or 0
  if seq ~= 0 or generation ~= (past and past.fate == DELETED and next or 0) then
    return {NOTHING, shown(past, raw)}
  end
  redis.call('UNLINK', entries, ids)
  head = {
    generation = next, seq = 0, heartbeat = 0, rewrites = 0, active = past and past.active or 0, expires = 0,
    snapshot_seq = 0, reborn = past and past.fate == NEVER_DELETED and 1 or 0,
    tail_id = '', snapshot_id = '', mark = '', user = user, summary = '',
  }
end
local expired = head.expires
head.seq = head.seq + 1
head.tail_id = id
head.active = math.max(now(), head.active + 1)
head.expires = ttl > 0 and now() + ttl or 0 -- not from `active`, which a clock that was ahead has set
if ARGV[9] then
  head.snapshot_seq, head.snapshot_id, head.summary = tonumber(ARGV[9]), ARGV[10], ARGV[11]
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
    local before = grave(session)
    dig(session, fate_of(head), head.generation, head.active, before and before.marks or '')
  end
  redis.call('PEXPIREAT', entries, whole(at))
  redis.call('PEXPIREAT', ids, whole(at))
  fresh = fresh or redis.call('HLEN', heads) == 1 -- then nobody else needs the time it has
  keep(heads, fresh, at + EXPIRED_AFTER)
  keep(index, fresh, at + EXPIRED_AFTER)
  keep(graves, no_grave, at + GRAVE_AFTER)
elseif expired > 0 or redis.call('PTTL', heads) >= 0 then
  for _, key in ipairs(KEYS) do
    redis.call('PERSIST', key)
  end
end
if redis.call('EXISTS', graves) == 1 then -- what may expire has a grave
  sweep()
end
return {DONE, head.generation, head.seq}
