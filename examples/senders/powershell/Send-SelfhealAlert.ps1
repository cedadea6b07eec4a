<#
.SYNOPSIS
Send one alert to a Selfheal daemon.
.DESCRIPTION
Compiles ..\csharp\SelfhealSend.cs with Add-Type (Windows PowerShell 5.1 and later) and runs it: ASCII JSON over libzmq with
CURVE, the same message under the same id until the daemon has it on disk. Needs a libzmq.dll of PowerShell's own bitness
(64 bit mostly). Prints "stored ID" and "decided OUTCOME [EXECUTION]". Exit codes: 0 well, 1 refused for good, 2 usage,
4 no key, or no answer in time, 5 stored, but no decision in time.
.EXAMPLE
.\Send-SelfhealAlert.ps1 -Type service_failure -Service risk-manager -Message "no heartbeat" -LibraryFolder C:\zmq -KeyFile C:\keys\desk.key
#>
[CmdletBinding()]
param(
    [Parameter(Mandatory = $true)][string]$Type,
    [string]$Service = '',
    [string]$Message = '',
    [ValidateSet('low', 'medium', 'high', 'critical')][string]$Severity = 'high',
    [double]$TimeoutS = 30,
    [string]$Id = '',
    [string]$KeyFile = '',
    [string]$Address = '',
    [string]$State = '',
    [string]$LibraryFolder = '',
    [string]$Source = (Join-Path $PSScriptRoot '..\csharp\SelfhealSend.cs')
)
$ErrorActionPreference = 'Stop'

if ($LibraryFolder) { $env:PATH = "$LibraryFolder;$env:PATH" }
if (-not ('Selfheal.Sender' -as [type])) {
    Add-Type -Language CSharp -TypeDefinition ([IO.File]::ReadAllText((Resolve-Path $Source).ProviderPath))
}

$seconds = $TimeoutS.ToString([Globalization.CultureInfo]::InvariantCulture)
[string[]]$words = '--type', $Type, '--severity', $Severity, '--timeout-s', $seconds
$optional = [ordered]@{
    '--service' = $Service; '--message' = $Message; '--id' = $Id
    '--key-file' = $KeyFile; '--address' = $Address; '--state' = $State
}
foreach ($name in $optional.Keys) {
    if ($optional[$name]) { $words += $name, $optional[$name] }
}
exit [Selfheal.Sender]::Run($words, [Console]::Out, [Console]::Error)
