-- This text ends a script that stored entries. It stores `head`, gives the session its time to live, `ttl`, and answers.
-- `owner` is the user of a session that begins; `tombstone_count` the number of fields that `tombstones` had.
local HEADS_GRACE_MS, TOMBSTONES_GRACE_MS, SAMPLE = 1000, 604800000, 8

local expired = head.expires
if owner then
  redis.call('HSET', tombstones, OWNER, owner)
end
head.expires = ttl > 0 and now() + ttl or 0 -- not from `changed`, which a clock that was ahead may have set
redis.call('HSET', heads, session, encode_head(head))
if ttl > 0 then
  -- Set the expiry of a key, and never to an earlier time unless nothing else needs the key.
  local function extend_expiry(key, unshared, at)
    if unshared then
      redis.call('PEXPIREAT', key, integer(at))
    else
      redis.call('PEXPIREAT', key, integer(at), 'GT')
    end
  end

  local at = math.ceil(head.expires / 1000)
  if expired == 0 then
    local before = read_tombstone(session)
    write_tombstone(session, history_of(head), head, before and before.call_ids or '')
  end
  for place = 4, #KEYS do
    redis.call('PEXPIREAT', KEYS[place], integer(at))
  end
  local unshared = redis.call('HLEN', heads) == 1
  extend_expiry(heads, unshared, at + HEADS_GRACE_MS)
  extend_expiry(index, unshared, at + HEADS_GRACE_MS)
  extend_expiry(tombstones, tombstone_count <= 1, at + TOMBSTONES_GRACE_MS)
elseif expired > 0 or redis.call('PTTL', heads) >= 0 then
  for _, key in ipairs(KEYS) do
    redis.call('PERSIST', key)
  end
end
if tombstone_count > 1 then -- every session that may expire has a tombstone
  -- Each append looks at more sessions than it can add, so that few expired ones remain.
  for _, session in ipairs(redis.call('ZRANDMEMBER', index, SAMPLE)) do
    local raw = redis.call('HGET', heads, session)
    local head = raw and decode_head(raw, true)
    if head and not is_live(head) then
      redis.call('HDEL', heads, session)
      redis.call('ZREM', index, session)
    end
  end
end
return {DONE, head.generation, head.seq}
