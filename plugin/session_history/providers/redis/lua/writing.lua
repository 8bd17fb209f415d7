local HEADS_GRACE_MS, TOMBSTONES_GRACE_MS, SAMPLE = 1000, 604800000, 8
local ENTRY, ENTRY_BYTES, WITH_KEYS, IN_PIECES = '>BBI4', 6, 2, 4
local STUB, STUB_BYTES = '>I4I2', 22

-- Return the fields of an entry, or nil if the bytes are not one.
local function decode_entry(raw)
  if #raw < ENTRY_BYTES then
    return nil
  end
  local flags, origin_bytes, id_bytes = struct.unpack(ENTRY, raw)
  local id_end = ENTRY_BYTES + id_bytes
  local stop = id_end + origin_bytes
  local names = {raw:sub(ENTRY_BYTES + 1, id_end)}
  if flags % (2 * WITH_KEYS) >= WITH_KEYS then
    local count = raw:byte(stop + 1) or 256
    stop = stop + 1
    for _ = 1, count do
      local high, low = raw:byte(stop + 1, stop + 2)
      if not low then
        return nil
      end
      local start = stop + 2
      stop = start + high * 256 + low
      names[#names + 1] = raw:sub(start + 1, stop)
    end
  end
  if stop > #raw then
    return nil
  end
  return {flags = flags, names = names, origin = raw:sub(id_end + 1, id_end + origin_bytes), header_bytes = stop}
end

local function is_large(entry)
  return entry:byte() >= IN_PIECES
end

local function is_staged(entry, staged)
  local _, count = struct.unpack(STUB, entry, #entry - STUB_BYTES + 1)
  return redis.call('HLEN', staged) == count
end

-- Move the pieces of an entry to their place. From now on they live as long as the session.
local function place_pieces(head, seq, staged, pieces)
  redis.call('RENAME', staged, pieces)
  redis.call('PERSIST', pieces)
  local large, name = large_seqs(ids), integer(seq) .. ' '
  if not (' ' .. large):find(' ' .. name, 1, true) then
    head.id_count = head.id_count + redis.call('HSET', ids, LARGE, large .. name)
  end
end

-- Add an entry behind the tail. The names are its id and its keys.
local function push(head, entry, origin, names)
  head.seq = head.seq + 1
  head.tail_origin = origin
  redis.call('RPUSH', entries, entry)
  local fields, seq = {}, integer(head.seq)
  for place, name in ipairs(names) do
    fields[2 * place - 1], fields[2 * place] = name, seq
  end
  head.id_count = head.id_count + redis.call('HSET', ids, unpack(fields))
end

-- Each append looks at more sessions than it can add, so that few expired ones remain.
local function remove_some_expired()
  for _, session in ipairs(redis.call('ZRANDMEMBER', index, SAMPLE)) do
    local raw = redis.call('HGET', heads, session)
    local head = raw and decode_head(raw, true)
    if head and not is_live(head) then
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

-- Store a head whose entries are stored. The session expires `ttl` microseconds from now, or never if it is 0.
-- `owner` is the user of a session that begins.
local function store_head(session, head, ttl, owner)
  local expired, is_first_tombstone = head.expires, ttl > 0 and redis.call('HLEN', tombstones) <= 1
  if owner then
    redis.call('HSET', tombstones, OWNER, owner)
  end
  head.expires = ttl > 0 and now() + ttl or 0 -- not from `changed`, which a clock that was ahead may have set
  redis.call('HSET', heads, session, encode_head(head))
  if ttl > 0 then
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
    extend_expiry(tombstones, is_first_tombstone, at + TOMBSTONES_GRACE_MS)
  elseif expired > 0 or redis.call('PTTL', heads) >= 0 then
    for _, key in ipairs(KEYS) do
      redis.call('PERSIST', key)
    end
  end
  if redis.call('HLEN', tombstones) > 1 then -- every session that may expire has a tombstone
    remove_some_expired()
  end
end
