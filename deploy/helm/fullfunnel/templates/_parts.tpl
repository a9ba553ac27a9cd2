{{- define "fullfunnel.name" -}}
{{ if contains "fullfunnel" .Release.Name }}{{ .Release.Name }}{{ else }}{{ printf "%s-fullfunnel" .Release.Name }}{{ end }}
{{- end }}

{{- define "fullfunnel.labels" -}}
{{ include "fullfunnel.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "fullfunnel.selector" -}}
app.kubernetes.io/name: fullfunnel
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "fullfunnel.pod" -}}
serviceAccountName: {{ include "fullfunnel.name" . }}
automountServiceAccountToken: false
enableServiceLinks: false # or the cluster would set FULLFUNNEL_PORT to something else
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  seccompProfile: { type: RuntimeDefault }
{{- with .Values.nodeSelector }}
nodeSelector: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.affinity }}
affinity: {{ toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "fullfunnel.confined" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: { drop: [ALL] }
{{- end }}
