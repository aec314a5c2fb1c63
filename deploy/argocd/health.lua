-- Health of Almanac's jobs for Argo CD, the same for every kind: docs/gitops.md.
local health = { status = "Progressing", message = "the operator has not looked at the job yet" }
local status = obj.status
if status == nil or status.conditions == nil then
  return health
end
if status.observedGeneration ~= nil and status.observedGeneration ~= obj.metadata.generation then
  health.message = "the operator has not looked at the last change yet"
  return health
end

local conditions = {}
for _, condition in ipairs(status.conditions) do
  conditions[condition.type] = condition
end

local function holds(name)
  return conditions[name] ~= nil and conditions[name].status == "True"
end

if conditions.Ready ~= nil then
  health.message = conditions.Ready.reason .. ": " .. conditions.Ready.message
end
if holds("Stalled") then
  health.status = "Degraded"
elseif holds("Suspended") then
  health.status = "Suspended"
elseif holds("Ready") then
  health.status = "Healthy"
elseif status.progress ~= nil and status.progress ~= "" then
  health.message = health.message .. " (" .. (status.stage or "") .. " " .. status.progress .. ")"
end
return health
