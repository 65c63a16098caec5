{{/* router.yaml: what the values say, and what the chart knows. */}}
{{- define "fairlead.router.config" -}}
{{- $router := .Values.router -}}
{{- $under := printf "%s/" (trimSuffix "/" $router.hostLogDir) -}}
{{- range $key, $path := dict "podLogsDir" $router.podLogsDir "stateDir" $router.stateDir -}}
{{- if not (hasPrefix $under $path) -}}
{{- fail (printf "router.%s = %s: must be under router.hostLogDir %s, so that both are on one mount" $key $path $router.hostLogDir) -}}
{{- end -}}
{{- end -}}
{{- if hasPrefix (printf "%s/" $router.podLogsDir) $router.stateDir -}}
{{- fail (printf "router.stateDir = %s: must not be under router.podLogsDir: the kubelet clears that" $router.stateDir) -}}
{{- end -}}
{{- $config := mustMergeOverwrite (deepCopy .Values.config) (deepCopy $router.config) -}}
{{- $logs := dict "pods_dir" $router.podLogsDir -}}
{{- if $router.docker.enabled -}}{{- $_ := set $logs "docker_containers_dir" $router.docker.containersDir -}}{{- end -}}
{{- $_ := set $config "logs" (mustMergeOverwrite (deepCopy ($config.logs | default dict)) $logs) -}}
{{- $_ := set $config "state_dir" $router.stateDir -}}
{{- $_ := set $config "admin" (dict "listen" (include "fairlead.address" (list $router.adminAddress $router.adminPort))) -}}
{{- $_ := set $config "shutdown_deadline" (printf "%ds" (sub (int $router.terminationGracePeriodSeconds) 10)) -}}
{{- toYaml $config -}}
{{- end -}}

{{/* Whether the API server is asked: then the router has an account with rights. */}}
{{- define "fairlead.router.asksApiServer" -}}
{{- if (.Values.router.config.kubernetes | default dict).enabled -}}yes{{- end -}}
{{- end -}}
