local ENTRY, ENTRY_BYTES, WITH_KEYS = '>BBI4', 6, 2

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
    local count = raw:byte(stop + 1) or 0
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
