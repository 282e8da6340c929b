-- Shared by every script of the stock API; an operation's own file follows.
-- KEYS[1..3] are always the cell's meta hash, outbox stream and deadline zset.
-- All keys come in KEYS and share the tag {event:cell}, so that one cluster slot
-- holds them. Replies are arrays of strings. Redis does not roll a script back:
-- so everything is read and judged first, and the first write of all is the
-- XADD, whose explicit id (epoch-seq) Redis itself refuses to repeat.
local META, OUT, DUE = KEYS[1], KEYS[2], KEYS[3]

-- Fields of a packed hold record, '|' between them.
local STATE, FP, UID, ITEMS, LIMITS, SEQ, DEADLINE, HARD, AT, ENDSEQ, ENDAT, REF, ORDER =
  1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13

-- Lua would print 1.7e+12; every integer here is below 2^53 and stays exact.
local function int(n) return string.format('%.0f', n) end

local function clock()
  local t = redis.call('TIME')
  return tonumber(t[1]) * 1000 + math.floor(tonumber(t[2]) / 1000)
end

-- rows('a,1;b,2') is {{'a','1'},{'b','2'}}.
local function rows(s)
  local out = {}
  for row in string.gmatch(s, '[^;]+') do
    local r = {}
    for f in string.gmatch(row, '[^,]+') do r[#r + 1] = f end
    out[#out + 1] = r
  end
  return out
end

local function unpack_hold(s)
  local h = {}
  for f in string.gmatch(s .. '|', '([^|]*)|') do h[#h + 1] = f end
  return h
end

-- emit appends the one event of a mutation. The field set is the same for every
-- type, since a stream stores repeated field names once per node.
local function emit(ep, seq, kind, id, uid, items, deadline, order, ref, extra, now)
  redis.call('XADD', OUT, ep .. '-' .. seq, 't', kind, 'h', id, 'u', uid, 'i', items,
    'd', deadline, 'o', order, 'r', ref, 'x', extra, 'ms', int(now))
end

-- resolve ends a HELD hold (the caller tested that: the compare of the
-- compare-and-set) and moves its units: to sold for a confirm, back to available
-- and out of the purchase limits otherwise.
local function resolve(key, user, id, h, state, kind, ref, now, keep)
  local back = state ~= 'C'
  local items, want = rows(h[ITEMS]), {'ep', 'mode', 'seq'}
  for _, it in ipairs(items) do
    want[#want + 1] = 'av:' .. it[1]
    want[#want + 1] = 'hd:' .. it[1]
  end
  local m = redis.call('HMGET', META, unpack(want))
  if not m[1] then return {'NOCELL'} end
  if m[2] == 'F' then return {'FROZEN', m[2]} end
  if back and string.sub(user, -#h[UID] - 3) ~= ':u:' .. h[UID] then
    return redis.error_reply('STOCK hold ' .. id .. ' is not of the user whose key was given')
  end
  local ev = {}
  for i, it in ipairs(items) do
    local q, av, hd = tonumber(it[2]), tonumber(m[2 * i + 2]), tonumber(m[2 * i + 3])
    if not av or not hd or hd < q then
      return redis.error_reply('STOCK counters of ' .. it[1] .. ' do not hold what hold ' .. id .. ' has')
    end
    ev[i] = it[1] .. ',' .. it[2] .. ',' .. int(back and av + q or av)
  end
  redis.call('ZCARD', DUE)
  if back then redis.call('HLEN', user) end

  local seq = int(tonumber(m[3]) + 1)
  emit(m[1], seq, kind, id, h[UID], table.concat(ev, ';'), h[DEADLINE], h[ORDER], ref, '', now)
  redis.call('HSET', META, 'seq', seq)
  for _, it in ipairs(items) do
    redis.call('HINCRBY', META, 'hd:' .. it[1], '-' .. it[2])
    redis.call('HINCRBY', META, (back and 'av:' or 'sd:') .. it[1], it[2])
  end
  if back then
    for _, l in ipairs(rows(h[LIMITS])) do
      if redis.call('HINCRBY', user, l[1], '-' .. l[2]) <= 0 then redis.call('HDEL', user, l[1]) end
    end
  end
  h[STATE], h[ENDSEQ], h[ENDAT], h[REF] = state, seq, int(now), ref
  local rec = table.concat(h, '|')
  -- Only a hold that has ended may time out of Redis: a TTL on a live one would
  -- take its units along.
  redis.call('SET', key, rec, 'PX', keep)
  redis.call('ZREM', DUE, id)
  return {'OK', rec}
end
