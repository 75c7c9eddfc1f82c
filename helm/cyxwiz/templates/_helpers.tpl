{{- /* Labels of every object of one part: include "cyxwiz.labels" (list . "operator") */}}
{{- define "cyxwiz.labels" -}}
{{- $root := index . 0 -}}
{{ include "cyxwiz.selector" . }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | quote }}
{{- end }}

{{- /* The labels that select the pods of one part; they never change. */}}
{{- define "cyxwiz.selector" -}}
app.kubernetes.io/name: cyxwiz
app.kubernetes.io/instance: {{ (index . 0).Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{- /* include "cyxwiz.image" (list . .Values.operator.image) */}}
{{- define "cyxwiz.image" -}}
{{- $root := index . 0 -}}
{{- $image := index . 1 -}}
{{- $registry := $root.Values.image.registry -}}
{{- with $registry }}{{ trimSuffix "/" . }}/{{ end }}{{ $image.repository }}
{{- if $image.digest }}@{{ $image.digest }}{{ else }}:{{ $root.Values.image.tag | default $root.Chart.AppVersion }}{{ end }}
{{- end }}

{{- /* Whether containers of this pod ask the NVIDIA runtime for all GPUs. */}}
{{- define "cyxwiz.nvidiaRuntime" -}}
{{- if has .Values.nodes.gpu.access (list "runtimeClass" "privileged") }}yes{{ end }}
{{- end }}

{{- /* Whether the operator may ask Kubernetes for GPUs: some agents may still be in mode reserve. */}}
{{- define "cyxwiz.reserves" -}}
{{- if or (eq .Values.nodes.gpu.mode "reserve") .Values.nodes.gpu.reservation.keep }}yes{{ end }}
{{- end }}

{{- /* Resources of a container, with the pod's claim on GPUs if asked: include "cyxwiz.resources" (list true .Values.agent.resources) */}}
{{- define "cyxwiz.resources" -}}
{{- $resources := deepCopy (index . 1) -}}
{{- if index . 0 -}}
{{- $resources = set $resources "claims" (append (default list $resources.claims) (dict "name" "gpus")) -}}
{{- end -}}
{{ toYaml $resources }}
{{- end }}
