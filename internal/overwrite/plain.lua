-- Set-if-newer for many bare values in one call, their versions beside them.
-- KEYS[2i-1]: the value's key, KEYS[2i]: its version's. ARGV[1]: mode (cdc, replay,
-- fill). Then for pair i: ARGV[3i-1] the value, ARGV[3i] its version (16 hex digits,
-- then two of flags), ARGV[3i+1] the ttl of both in milliseconds (0: none). A writer
-- that was elected adds one of each at the end: the key of the term, and its own term.
-- Returns one code per pair, see overwrite.go.
--
-- A version that outlived its value still proves what is old. A value without a
-- version is somebody else's, or its version was evicted: nothing is proven.
local mode, out, n = ARGV[1], {}, math.floor(#KEYS / 2)
if #KEYS % 2 == 1 and tonumber(redis.call('GET', KEYS[#KEYS]) or '0') > tonumber(ARGV[#ARGV]) then
  for i = 1, n do out[i] = 5 end
  return out
end
for i = 1, n do
  local key, beside = KEYS[2 * i - 1], KEYS[2 * i]
  local value, version, ttl = ARGV[3 * i - 1], ARGV[3 * i], ARGV[3 * i + 1]
  local kind, there = redis.call('TYPE', key)['ok'], redis.pcall('GET', beside)
  local code = 1
  if type(there) == 'table' or (kind ~= 'string' and kind ~= 'none') then
    code = 4
  elseif kind == 'none' and mode == 'replay' then
    code = 3
  elseif there and string.find(there, '^%x+$') and #there == 18 then
    local ch, cl = tonumber(string.sub(there, 1, 8), 16), tonumber(string.sub(there, 9, 16), 16)
    local nh, nl = tonumber(string.sub(version, 1, 8), 16), tonumber(string.sub(version, 9, 16), 16)
    if ch > nh or (ch == nh and cl > nl) then
      code = 0
    elseif ch == nh and cl == nl and mode == 'fill' and kind == 'string' then
      code = 2
    end
  end
  if code == 1 then
    if ttl == '0' then
      redis.call('SET', key, value)
      redis.call('SET', beside, version)
    else
      redis.call('SET', key, value, 'PX', ttl)
      redis.call('SET', beside, version, 'PX', ttl)
    end
  end
  out[i] = code
end
return out
