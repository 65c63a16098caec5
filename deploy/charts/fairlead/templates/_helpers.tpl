{{/* The first part of all names. */}}
{{- define "fairlead.name" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "fairlead.router.name" -}}{{ include "fairlead.name" . }}-router{{- end -}}
{{- define "fairlead.gateway.name" -}}{{ include "fairlead.name" . }}-gateway{{- end -}}

{{- define "fairlead.router.namespace" -}}{{ .Values.router.namespace.name | default .Release.Namespace }}{{- end -}}
{{- define "fairlead.gateway.namespace" -}}{{ .Values.gateway.namespace.name | default .Release.Namespace }}{{- end -}}

{{/* What pods are found by. Call with (list . "router"). */}}
{{- define "fairlead.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: fairlead-{{ index . 1 }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
{{- end -}}

{{/* Labels of pods: what does not change with every version of the chart, or each upgrade would restart them all. */}}
{{- define "fairlead.podLabels" -}}
{{ include "fairlead.selector" . }}
app.kubernetes.io/part-of: fairlead
{{- with (index . 0).Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Labels of every object. Call with (list . "router"). */}}
{{- define "fairlead.labels" -}}
{{- $root := index . 0 -}}
{{ include "fairlead.selector" . }}
app.kubernetes.io/part-of: fairlead
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" }}
{{- with $root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* An image's full name. Call with (list . .Values.router.image). */}}
{{- define "fairlead.image" -}}
{{- $root := index . 0 -}}{{- $image := index . 1 -}}
{{- if $image.digest -}}
{{ $image.repository }}@{{ $image.digest }}
{{- else -}}
{{ $image.repository }}:{{ $image.tag | default $root.Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{/* A pod security level as a namespace's labels. */}}
{{- define "fairlead.podSecurity" -}}
pod-security.kubernetes.io/enforce: {{ . }}
pod-security.kubernetes.io/audit: {{ . }}
pod-security.kubernetes.io/warn: {{ . }}
{{- end -}}

{{/* Volumes of `files`. Call with (dict "files" … "mode" …). */}}
{{- define "fairlead.files.volumes" -}}
{{- $mode := .mode -}}
{{- range $index, $files := .files }}
{{- if $index }}
{{ end -}}
- name: files-{{ .folder }}
  {{- if .secret }}
  secret: {secretName: {{ .secret }}, defaultMode: {{ $mode }}}
  {{- else }}
  configMap: {name: {{ .configMap }}, defaultMode: {{ $mode }}}
  {{- end }}
{{- end }}
{{- end -}}

{{- define "fairlead.files.mounts" -}}
{{- range $index, $files := . }}
{{- if $index }}
{{ end -}}
- {name: files-{{ .folder }}, mountPath: /etc/fairlead/files/{{ .folder }}, readOnly: true}
{{- end }}
{{- end -}}

{{/* Host and port for a listener; an IPv6 address goes into brackets. Call with (list address port). */}}
{{- define "fairlead.address" -}}
{{- $address := index . 0 -}}
{{- if contains ":" $address -}}[{{ $address }}]{{- else -}}{{ $address }}{{- end -}}:{{ index . 1 }}
{{- end -}}

{{/* Egress to name servers and brokers. Call with (list . the program's configuration). */}}
{{- define "fairlead.egress" -}}
{{- $root := index . 0 -}}{{- $kafka := (index . 1).kafka -}}
{{- $ports := $root.Values.networkPolicy.kafka.ports -}}
{{- if not $ports -}}
{{- range splitList "," $kafka.bootstrap_servers -}}
{{- $ports = append $ports (regexFind "[0-9]+$" (trim .) | int) -}}
{{- end -}}
{{- end -}}
# name servers
- ports:
    - {protocol: UDP, port: 53}
    - {protocol: TCP, port: 53}
# Kafka
- ports:
    {{- range uniq $ports }}
    - {protocol: TCP, port: {{ . }}}
    {{- end }}
  {{- with $root.Values.networkPolicy.kafka.peers }}
  to:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end -}}
