-- Set-if-newer for many envelopes in one call.
-- KEYS: the keys. ARGV[1]: mode (cdc, replay, fill). Then for key i:
-- ARGV[2i] the envelope, ARGV[2i+1] its ttl in milliseconds (0: none). A writer that
-- was elected adds one of each at the end: the key of the term, and its own term.
-- Returns one code per key, see overwrite.go.
--
-- Versions are compared as two 32-bit halves: Lua numbers are doubles and are
-- exact only to 2^53, and Lua's < on strings depends on the locale. They are read
-- byte by byte, since stand-ins for Redis do not all have its struct library.
local function half(s, at)
  local a, b, c, d = string.byte(s, at, at + 3)
  return ((a * 256 + b) * 256 + c) * 256 + d
end
local mode, out, n = ARGV[1], {}, #KEYS
if #ARGV % 2 == 0 then
  local term = tonumber(redis.call('GET', KEYS[n]) or '0')
  n = n - 1
  if term > tonumber(ARGV[#ARGV]) then
    for i = 1, n do out[i] = 5 end
    return out
  end
end
for i = 1, n do
  local env, ttl = ARGV[2 * i], ARGV[2 * i + 1]
  local head = redis.pcall('GETRANGE', KEYS[i], 0, 11)
  local code = 1
  if type(head) == 'table' then
    code = 4
  elseif head == '' then
    if mode == 'replay' then code = 3 end
  elseif #head == 12 and string.byte(head) == 0xA7 then
    local ch, cl = half(head, 5), half(head, 9)
    local nh, nl = half(env, 5), half(env, 9)
    if ch > nh or (ch == nh and cl > nl) then
      code = 0
    elseif ch == nh and cl == nl and mode == 'fill' then
      code = 2
    end
  end
  if code == 1 then
    if ttl == '0' then
      redis.call('SET', KEYS[i], env)
    else
      redis.call('SET', KEYS[i], env, 'PX', ttl)
    end
  end
  out[i] = code
end
return out
