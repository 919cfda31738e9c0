-- The clients' door: who may ask, and how much of large requests may be under way at once.
-- gate.py puts the table `settings` and sha256.lua before this. Each of Envoy's threads runs it
-- for itself. A mistake in here lets nobody in: without pcall Envoy would let everybody in.

local MARKS, LEASES = "arr-coc", "arr-coc.lease"
local MACHINE = { ["localhost"] = true, ["127.0.0.1"] = true, ["[::1]"] = true }

local function refusal(status, message, more)
  local headers = more or {}
  headers[":status"] = status
  return { headers = headers, message = message }
end

local function needed(handle)
  return handle:metadata():get("needs") or "client"
end

-- Tokens ------------------------------------------------------------------------------------

-- Two Authorization headers come as one, with a comma that no token holds.
local function token_in(headers)
  local said = headers:get("authorization")
  if not said or #said > settings.token_bytes_max then return nil end
  local scheme, token = string.match(said, "^(%a+) +([%w_-]+) *$")
  return scheme and string.lower(scheme) == "bearer" and token
end

local function refused_by_token(handle)
  local needs = needed(handle)
  if needs == "nobody" then return nil end
  local token = token_in(handle:headers())
  local known = token and handle:virtualHost():metadata():get(sha256(token))
  if not known then
    return refusal("401", "a bearer token is needed, and this is none that is accepted",
                   { ["www-authenticate"] = "Bearer" })
  end
  local role, name = string.match(known, "^(%a+) (.+)$")
  if needs == "operator" and role ~= "operator" then
    return refusal("403", "this needs the token of an operator, and " .. name .. " is a client")
  end
  handle:streamInfo():dynamicMetadata():set(MARKS, "client", name)
  return nil
end

-- Without tokens ----------------------------------------------------------------------------

-- Browsers say where a page comes from; a name that leads to this machine may be a stranger's.
local function refused_as_page(handle)
  local headers = handle:headers()
  local site = headers:get("sec-fetch-site")
  local host = string.gsub(string.lower(headers:get(":authority") or ""), ":%d+$", "")
  if headers:get("origin") or (site and site ~= "none") or not MACHINE[host] then
    return refusal("403", "web pages and other names than localhost may not ask where no " ..
                          "token is needed; to do: set serving.tokens")
  end
  return nil
end

-- Nobody comes through this door as an operator, for nobody could show that he is one.
local function refused_as_stranger(handle)
  if needed(handle) ~= "operator" then return nil end
  return refusal("403", "only operators may ask for this; at the operators' door: " ..
                        "curl --unix-socket .../sockets/" .. settings.operators ..
                        " http://localhost" .. handle:headers():get(":path"))
end

-- Large requests ----------------------------------------------------------------------------

-- Envoy holds a request until all of it is there, so what large ones hold together is lent:
-- until the answer begins, or where the client goes before it, until its stream is collected.
-- Nothing tells a script that a client went; but then nobody holds the stream's coroutine.
local held, count, collected_ms = 0, 0, 0
local of_stream = setmetatable({}, { __mode = "k" })
local by_number = setmetatable({}, { __mode = "v" })

local function give_back(lease)
  local terms = getmetatable(lease)
  held = held - terms.bytes
  terms.bytes = 0
end

local function lend(handle, bytes)
  local lease = newproxy(true)
  local terms = getmetatable(lease)
  terms.bytes, terms.__gc = bytes, give_back
  held, count = held + bytes, count + 1
  of_stream[coroutine.running()], by_number[count] = lease, lease
  handle:streamInfo():dynamicMetadata():set(LEASES, "number", count)
end

-- Twice: the first time finds the streams, the second what they had. Not for everybody who
-- asks: it takes a millisecond.
local function collect(handle)
  local now_ms = tonumber(tostring(handle:timestamp()))
  if math.abs(now_ms - collected_ms) < settings.collect_ms then return end
  collected_ms = now_ms
  collectgarbage()
  collectgarbage()
end

local function size_of(headers)
  if headers:get(settings.coding_header) then return settings.request_bytes_max end
  return tonumber(headers:get("content-length") or 0) or settings.request_bytes_max
end

local function refused_by_size(handle)
  local bytes = size_of(handle:headers())
  if bytes > 0 and handle:metadata():get("body") == "none" then
    return refusal("413", "this request has a body; expected none")
  end
  if bytes <= settings.small_bytes_max then return nil end
  if bytes > settings.request_bytes_max then
    return refusal("413", "this request has " .. bytes .. " bytes; expected at most " ..
                          settings.request_bytes_max)
  end
  if held + bytes > settings.lent_bytes_max then collect(handle) end
  if held + bytes > settings.lent_bytes_max then
    return refusal("429", "too many large requests are under way; to do: ask again later",
                   { ["retry-after"] = "1" })
  end
  lend(handle, bytes)
  return nil
end

-- The filter --------------------------------------------------------------------------------

-- Nothing here reads a query, but for Envoy's administration: a stranger's would be work for it.
local function without_query(headers)
  local path = headers:get(":path") or ""  -- CONNECT has none
  local bare = string.match(path, "^[^?]*")
  if bare ~= path then headers:replace(":path", bare) end
end

-- What nobody serves is answered at its head: the router would wait for all of its body.
local function refused_as_unknown(handle)
  local says = handle:metadata():get("says")
  return says and refusal("404", says)
end

local function refused_by_client(handle)
  if settings.tokens then return refused_by_token(handle) end
  return refused_as_page(handle) or refused_as_stranger(handle)
end

local function refused(handle)
  without_query(handle:headers())
  local by_client = refused_by_client(handle)
  handle:headers():remove("authorization")
  return by_client or refused_as_unknown(handle) or refused_by_size(handle)
end

function envoy_on_request(handle)
  local well, found = pcall(refused, handle)
  if not well then
    handle:logErr("the gate failed: " .. tostring(found))
    found = refusal("500", "who asks could not be found out; nobody was let in")
  end
  if found then handle:respond(found.headers, found.message) end
end

function envoy_on_response(handle)
  local found = handle:streamInfo():dynamicMetadata():get(LEASES)
  local lease = found and by_number[found.number]
  if lease then give_back(lease) end
end
