{{/* gateway.yaml: what the values say, and what the chart knows. */}}
{{- define "fairlead.gateway.config" -}}
{{- $gateway := .Values.gateway -}}
{{- $config := mustMergeOverwrite (deepCopy .Values.config) (deepCopy $gateway.config) -}}
{{- $_ := set $config "listen" (include "fairlead.address" (list $gateway.listenAddress $gateway.port)) -}}
{{- $_ := set $config "admin" (dict "listen" (include "fairlead.address" (list $gateway.listenAddress $gateway.adminPort))) -}}
{{- if not $config.public_url -}}{{- $_ := set $config "public_url" (include "fairlead.gateway.url" .) -}}{{- end -}}
{{- toYaml $config -}}
{{- end -}}

{{/* How callers reach it unless the values say: by the first host of the ingress or route, else by the Service. */}}
{{- define "fairlead.gateway.url" -}}
{{- $gateway := .Values.gateway -}}
{{- if and $gateway.ingress.enabled $gateway.ingress.hosts -}}
{{ if $gateway.ingress.tlsSecret }}https{{ else }}http{{ end }}://{{ first $gateway.ingress.hosts }}
{{- else if and $gateway.httpRoute.enabled $gateway.httpRoute.hostnames -}}
https://{{ first $gateway.httpRoute.hostnames }}
{{- else -}}
http://{{ include "fairlead.gateway.name" . }}.{{ include "fairlead.gateway.namespace" . }}.svc{{ if ne (int $gateway.service.port) 80 }}:{{ $gateway.service.port }}{{ end }}
{{- end -}}
{{- end -}}
